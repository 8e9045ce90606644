"""Splitting wide channels: the function stays, int8 loses less, other readers see no copies; what cannot gain is left alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.quantize import QuantSpec, quantize
from edgewise.quantize.passes.prepare import prepare
from edgewise.quantize.passes.split_channels import SplitChannels, parts_of
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_runner import OnnxRunner

Make = Callable[..., Any]

POST_NORM = """(float[1,12,48] x, float[48] g, float[48] b, float[48,48] w) => (float[1,12,48] y)
    { n = LayerNormalization(x, g, b)  p = MatMul(n, w)  y = Add(p, n) }"""
TRANSPOSED = """(float[12,48] x, float[20,48] w, float[20] b, float[48] g) => (float[12,20] y)
    { s = Mul(x, g)  r = Relu(s)  y = Gemm<transB=1>(r, w, b) }"""
CONVOLVED = """(float[1,48,6,6] x, float[8,48,1,1] w) => (float[1,8,6,6] y) { r = Relu(x)  y = Conv(r, w) }"""
SHAPES = {POST_NORM: (1, 12, 48), TRANSPOSED: (12, 48), CONVOLVED: (1, 48, 6, 6)}


def build(graph: Make, text: str, reach: float = 40.0) -> ir.Model:
    """Weights of normal numbers; channel 5 of the scales ``g`` is ``reach`` times as large as the others."""
    rng = np.random.default_rng(3)
    found = {}
    for entry in text[text.index("(") + 1 : text.index(")")].split(", "):
        kind, name = entry.split()
        found[name] = rng.normal(size=[int(dim) for dim in kind[6:-1].split(",")]).astype(np.float32)
    if "g" in found:
        found["g"] = np.where(np.arange(48) == 5, reach, 1.0).astype(np.float32)
    del found["x"]
    return prepare(graph(text, found))


def sqnr_db(model: ir.Model, made: ir.Model, data: Any) -> float:
    runs = [[OnnxRunner(each, optimize=False).run(sample.inputs) for sample in data] for each in (model, made)]
    return min(parity.sqnr_db for parity in compare_outputs(*runs))


@pytest.mark.parametrize("text", [POST_NORM, TRANSPOSED])
def test_the_function_stays_and_int8_loses_less(text: str, graph: Make, normal: Make) -> None:
    model = build(graph, text)
    data, unseen = normal(16, SHAPES[text]), normal(4, SHAPES[text], seed=9)
    splits = SplitChannels(QuantSpec(), data)
    split = splits(model.clone()).model
    before, after = (Counter(node.op_type for node in each.graph) for each in (model, split))
    assert after - before == Counter(Gather=1, Concat=1, Mul=1)
    (row,) = splits.split
    assert row["copies"] == 2 and row["gain_db"] >= 2
    gather = next(node for node in split.graph if node.op_type == "Gather")
    assert list(gather.inputs[1].const_value.numpy()) == [5, 5]
    wider = next(node for node in split.graph if node.op_type == "Mul" and node.inputs[0].name.endswith("_wider"))
    assert {use.node.op_type for use in wider.outputs[0].uses()} <= {"MatMul", "Gemm"}  # Add reads what it read
    assert [(each.name, each.shape) for each in split.graph.outputs] == [
        (each.name, each.shape) for each in model.graph.outputs
    ]
    assert sqnr_db(model, split, unseen) > 100
    plain, made = (quantize(model, QuantSpec(), data, rounding="squant", split_channels=on) for on in (False, True))
    assert plain.report["split"] == [] and made.report["split"] == splits.split
    assert sqnr_db(model, made.model, unseen) > sqnr_db(model, plain.model, unseen) + 1


@pytest.mark.parametrize(
    ("text", "reach", "spec"),
    [
        (POST_NORM, 1.0, QuantSpec()),  # channels alike
        (CONVOLVED, 40.0, QuantSpec()),
        (POST_NORM, 40.0, replace(QuantSpec(), activation_dtype="float32", quantize_bias=False)),
    ],
)
def test_what_cannot_gain_is_left_alone(text: str, reach: float, spec: QuantSpec, graph: Make, normal: Make) -> None:
    model = build(graph, text, reach)
    splits = SplitChannels(spec, normal(8, SHAPES[text]))
    split = splits(model.clone()).model
    assert splits.split == []
    assert [node.op_type for node in split.graph] == [node.op_type for node in model.graph]


def test_layers_kept_in_float_read_what_they_read(graph: Make, normal: Make) -> None:
    model = build(graph, POST_NORM)
    layer = next(str(node.name) for node in model.graph if node.op_type == "MatMul")
    splits = SplitChannels(QuantSpec(), normal(8, SHAPES[POST_NORM]), keep_float=[layer])
    splits(model)
    assert splits.split == []


def test_parts_narrow_the_widest_first() -> None:
    assert parts_of(np.array([24.0, 6.0, 5.0, 0.0]), 3).tolist() == [4, 1, 1, 1]
    assert parts_of(np.array([24.0, 6.0, 13.0, 0.0]), 3).tolist() == [3, 1, 2, 1]
    assert parts_of(np.zeros(3), 0).tolist() == [1, 1, 1]
