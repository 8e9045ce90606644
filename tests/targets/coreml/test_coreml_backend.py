"""ONNX's backend node tests of every operator that the converter claims, through converter and evaluator: they pass or are refused as documented.

What the operator takes as parameters is made constant, as exporters do it; many tests share one program.
EDGEWISE_IOS=17 (15 to 26) runs them for another deployment target: all that is taken there has to pass.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets.coreml.judge import judge
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.ports import check_port
from edgewise.targets.coreml.prepare import nodes_of, opset_of, prepare
from edgewise.targets.coreml.row import Row
from edgewise.targets.coreml.table import families
from edgewise.targets.errors import TargetError

pytestmark = [pytest.mark.slow, pytest.mark.conformance]
IOS = int(os.environ.get("EDGEWISE_IOS", "18"))
_FULL = 18  # from here on nothing but what REFUSED lists is refused
_BFLOAT16_STEP = 2**-7
# All that is refused of them, and docs/targets-coreml.md says why: a word of each refusal by operator ("": of any).
REFUSED = {
    "": ("an empty tensor", "float8_", "float4_", "int2", "int4"),
    "Dropout": ("training mode",),
    "Loop": ("a number of iterations known at run time",),
    "Scan": ("an input that is left out",),
    "Unsqueeze": ("rank 6",),
}
# Between corners ONNX counts with the whole length of the result (so do PyTorch and ONNX Runtime); what these two expect is of 2.4 pixels.
DISPUTED = ("test_resize_downsample_scales_linear_align_corners", "test_resize_downsample_scales_cubic_align_corners")
# As many of each family were taken when this was written.
LEAST = {
    "activation": 62, "cells": 12, "conv": 17, "detection": 10, "roi": 3, "elementwise": 208, "filling": 43, "fourier": 12, "indexing": 31,
    "linear": 18, "normalization": 54, "padding": 6, "pool": 43, "quantization": 20, "rare": 18, "recurrent": 6, "reduction": 128,
    "resize": 40, "sampling": 23, "shape": 49, "slicing": 53, "attention": 0, "control": 5, "einsum": 9,
}  # fmt: skip


@dataclass
class NodeTest:
    """One of them: the model with parameters as initializers, its inputs and the outputs that ONNX wants."""

    name: str
    model: onnx.ModelProto
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    refusal: str = ""


@dataclass
class Collected:
    """The tests of one family of operators that Core ML takes, and why others are refused."""

    taken: list[NodeTest] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)


def collect(family: str, ios: int, cases: list[Any]) -> Collected:
    """All node tests whose operator has a row in that family."""
    rows = {row.op: row for row in families()[family] if not row.domain}
    found = Collected()
    for case in cases:
        test = _read(case, rows)
        if test is None:
            continue
        test.refusal = _refusal(test.model, ios)
        if test.refusal:
            found.refused[f"{test.model.graph.node[0].op_type}: {test.refusal}"] += 1
        else:
            found.taken.append(test)
    return found


def merged(tests: list[NodeTest]) -> Iterator[tuple[onnx.ModelProto, list[NodeTest]]]:
    """Tests of one opset as one model; names are those of the test and the tensor."""
    opsets: dict[int, list[NodeTest]] = {}
    for test in tests:
        opsets.setdefault(test.model.opset_import[0].version, []).append(test)
    for opset, group in opsets.items():
        graph = onnx.GraphProto(name="cases")
        for test in group:
            part = onnx.compose.add_prefix_graph(test.model.graph, f"{test.name}/")
            graph.node.extend(part.node)
            graph.input.extend(part.input)
            graph.output.extend(part.output)
            graph.initializer.extend(part.initializer)
        imports = [onnx.helper.make_opsetid("", opset)]
        yield onnx.helper.make_model(graph, opset_imports=imports, ir_version=10), group


def _read(case: Any, rows: dict[str, Row]) -> NodeTest | None:
    """None for other operators, several nodes, and what is no tensor of numbers."""
    node = case.model.graph.node[0]
    if len(case.model.graph.node) != 1 or node.domain or node.op_type not in rows or len(case.model.opset_import) != 1:
        return None
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    given, wanted = ([_array(item) for item in side] for side in case.data_sets[0])
    if any(array is None for array in (*given, *wanted)):
        return None
    inputs = {value.name: array for value, array in zip(model.graph.input, given, strict=True)}
    outputs = {value.name: array for value, array in zip(model.graph.output, wanted, strict=True)}
    _bind(model, rows[node.op_type], inputs)
    return NodeTest(case.name, model, inputs, outputs)


def _array(item: Any) -> np.ndarray | None:
    """None for sequences, optionals and strings."""
    if isinstance(item, onnx.TensorProto):
        return None if item.data_type == onnx.TensorProto.STRING else numpy_helper.to_array(item)
    if not isinstance(item, np.ndarray | np.generic) or item.dtype.kind in "OSU":
        return None
    return np.asarray(item)


def _bind(model: onnx.ModelProto, row: Row, inputs: dict[str, np.ndarray]) -> None:
    """Make constants of the inputs that are parameters in Core ML."""
    node = model.graph.node[0]
    stored = row.op == "DequantizeLinear" and inputs[node.input[0]].dtype.name in _WEIGHTS_ALONE
    for index in (*row.static, *row.clamped, *_WEIGHTS.get(row.op, ()), *((0,) if stored else ())):
        name = node.input[index] if index < len(node.input) else ""
        if name in inputs and name not in [node.input[other] for other in range(len(node.input)) if other != index]:
            model.graph.initializer.append(numpy_helper.from_array(inputs.pop(name), name))
    kept = [value for value in model.graph.input if value.name in inputs]
    del model.graph.input[:]
    model.graph.input.extend(kept)


# What is a weight in every real network, though the operator would take it computed too.
_WEIGHTS = {
    "BatchNormalization": (1, 2, 3, 4),
    "PRelu": (1,),
    "OneHot": (1, 2),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Loop": (0, 1),
}
# What nothing but weights is stored in.
_WEIGHTS_ALONE = (
    "int2",
    "uint2",
    "int4",
    "uint4",
    "float4_e2m1fn",
    *(f"float8_{kind}" for kind in ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz")),
)


def _refusal(model: onnx.ModelProto, ios: int) -> str:
    try:
        ready = prepare(ir.from_proto(model), ios)
    except TargetError as error:
        return str(error.found)
    for node in nodes_of(ready):
        refusal = judge(NodeView(node, opset_of(ready), ios))
        if refusal is not None:
            return f"{refusal.attribute} {refusal.found}".strip()
    ports = [(value, "input") for value in ready.graph.inputs] + [(value, "output") for value in ready.graph.outputs]
    refusals = (check_port(value, kind, ios) for value, kind in ports)
    return next((refusal.found for refusal in refusals if refusal is not None), "")


def claimed() -> list[str]:
    """The families that have operators of ONNX's own domain."""
    return sorted(family for family, rows in families().items() if any(row.domain == "" for row in rows))


@pytest.mark.parametrize("family", claimed())
def test_node_tests(family: str, build_model: Callable[..., Any], onnx_node_tests: list[Any]) -> None:
    found = collect(family, IOS, onnx_node_tests)
    failed: list[str] = []
    for model, tests in merged(found.taken):
        executor, _, _ = build_model(model, compute_precision="float32", minimum_deployment_target=f"iOS{IOS}")
        inputs = {f"{test.name}/{name}": array for test in tests for name, array in test.inputs.items()}
        made = executor.run(inputs)
        failed += [line for test in tests if (line := difference(test, made))]
    print(f"iOS{IOS} {family}: {len(found.taken)} taken, refused: {dict(found.refused)}")
    assert failed == []
    if IOS < _FULL:
        return  # what else an older system lacks is refused with its reason
    assert [line for line in found.refused if not documented(line)] == []
    assert len(found.taken) >= LEAST[family], f"more is refused than was: {dict(found.refused)}"


def documented(line: str) -> bool:
    """Whether a refusal ("operator: reason") is one of those that the docs explain."""
    op, _, reason = line.partition(": ")
    return any(word in reason for word in (*REFUSED[""], *REFUSED.get(op, ())))


def difference(test: NodeTest, made: dict[str, np.ndarray]) -> str:
    """Empty when the outputs are those that ONNX wants, within its own tolerance."""
    disputed = OnnxRunner(ir.from_proto(test.model), optimize=False).run(test.inputs) if test.name in DISPUTED else {}
    for name, want in (test.outputs | disputed).items():
        have = made[f"{test.name}/{name}"]
        if have.shape != want.shape:
            return f"{test.name}: shape {have.shape} where ONNX has {want.shape}"
        near = _BFLOAT16_STEP if want.dtype.name == "bfloat16" else 1e-3  # bfloat16 is float32 in Core ML
        if not np.allclose(have.astype(np.float64), want.astype(np.float64), rtol=near, atol=1e-5, equal_nan=True):
            return f"{test.name}: {np.ravel(have)[:4]} where ONNX has {np.ravel(want)[:4]}"
    return ""
