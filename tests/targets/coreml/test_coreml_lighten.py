"""Fewer vectors beside compressed weights: the package computes the very same, and its weight file is smaller."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets.base import BuildResult, Executor
from edgewise.targets.coreml.prepare import prepare

BuildModel = Callable[..., tuple[Executor, BuildResult, Path]]
CHANNELS = 48


def separable(
    *, quantized: bool = True, activation: str = "Relu", spread: float = 8.0, between: str = "", pad: int = 0
) -> onnx.ModelProto:
    """A pointwise convolution, an activation, a depthwise one, ``between``, a pointwise one with ``pad``; per-channel int8."""
    random = np.random.default_rng(5)
    nodes, constants = [], []

    def conv(name: str, x: str, shape: tuple[int, ...], **attributes: Any) -> str:
        scale = (np.geomspace(1, spread, shape[0]) / 400).astype(np.float32)
        integers = random.integers(-127, 128, shape).astype(np.int8)
        plain = integers * scale.reshape(-1, 1, 1, 1)
        constants.append(numpy_helper.from_array(random.standard_normal(shape[0]).astype(np.float32), f"{name}.b"))
        if quantized:
            zero = np.zeros(shape[0], np.int8)
            constants.extend(
                numpy_helper.from_array(array, f"{name}.{part}")
                for part, array in (("q", integers), ("s", scale), ("z", zero))
            )
            nodes.append(
                helper.make_node("DequantizeLinear", [f"{name}.{part}" for part in "qsz"], [f"{name}.w"], axis=0)
            )
        else:
            constants.append(numpy_helper.from_array(plain, f"{name}.w"))
        nodes.append(helper.make_node("Conv", [x, f"{name}.w", f"{name}.b"], [name], name=name, **attributes))
        return name

    y = conv("first", "x", (CHANNELS, 16, 1, 1))
    nodes.append(helper.make_node(activation, [y], ["active"]))
    y = conv("depthwise", "active", (CHANNELS, 1, 3, 3), group=CHANNELS, pads=[1, 1, 1, 1])
    if between:
        nodes.append(helper.make_node(between, [y], ["between"]))
        y = "between"
    conv("last", y, (32, CHANNELS, 1, 1), pads=[pad] * 4)
    ports = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 8, 8])]
    outputs = [helper.make_tensor_value_info("last", TensorProto.FLOAT, [1, 32, 8 + 2 * pad, 8 + 2 * pad])]
    graph = helper.make_graph(nodes, "separable", ports, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def vectors(model: onnx.ModelProto) -> dict[str, int]:
    """How many biases and scales of more than one number the prepared graph has."""
    ready = prepare(ir.from_proto(model), 17)
    sizes = {"biases": 0, "scales": 0}
    for node in ready.graph:
        if node.op_type == "Conv":
            sizes["biases"] += len(node.inputs) > 2
        if node.op_type == "DequantizeLinear" and node.inputs[1] is not None and node.inputs[1].const_value is not None:
            sizes["scales"] += node.inputs[1].const_value.size > 1
    return sizes


@pytest.mark.parametrize("device", ["iOS17", "iOS18"])
def test_a_separable_convolution_loses_two_vectors_and_computes_the_same(device: str, build_model: BuildModel) -> None:
    model = separable()
    assert vectors(model) == {"biases": 2, "scales": 2}
    executor, _, folder = build_model(model, minimum_deployment_target=device)
    full, _, _ = build_model(model, minimum_deployment_target=device, compute_precision="float32")
    x = {"x": np.random.default_rng(0).standard_normal((1, 16, 8, 8)).astype(np.float32)}
    reference = OnnxRunner(ir.from_proto(model), optimize=False).run(x)
    assert compare_outputs([reference], [full.run(x)])[0].sqnr_db >= 110
    assert compare_outputs([reference], [executor.run(x)])[0].sqnr_db >= 55
    # A header of the file; weights, two scales and two biases in float16, each after its own header and filled up to 64 bytes.
    weights = [CHANNELS * 16, CHANNELS * 9, 32 * CHANNELS]
    halves = [2 * CHANNELS, 2 * 32, 2 * CHANNELS, 2 * 32]
    size = (folder / "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin").stat().st_size
    assert size <= 64 + sum(64 + -(-count // 64) * 64 for count in weights + halves)


@pytest.mark.parametrize(
    ("case", "left"),
    [
        ({"activation": "HardSwish"}, {"biases": 2, "scales": 3}),
        ({"activation": "LeakyRelu"}, {"biases": 2, "scales": 2}),
        ({"between": "Relu"}, {"biases": 3, "scales": 2}),
        ({"pad": 1}, {"biases": 3, "scales": 2}),
        ({"spread": 1000.0}, {"biases": 2, "scales": 3}),
        ({"quantized": False}, {"biases": 3, "scales": 0}),
    ],
    ids=lambda case: str(next(iter(case), "")) if isinstance(case, dict) else "",
)
def test_what_would_change_the_numbers_stays(case: dict[str, Any], left: dict[str, int]) -> None:
    assert vectors(separable(**case)) == left


def test_a_tensor_that_something_else_reads_keeps_its_bias_and_its_scales() -> None:
    for name in ("first", "active", "depthwise"):
        model = separable()
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, CHANNELS, 8, 8]))
        assert vectors(model) == {"biases": 3 if name == "depthwise" else 2, "scales": 2 if name == "depthwise" else 3}


@pytest.mark.parametrize(("channels", "in_file"), [(24, False), (32, True)])
def test_what_is_shorter_than_its_header_stands_in_the_program(
    channels: int, in_file: bool, build_model: BuildModel
) -> None:
    random = np.random.default_rng(1)
    constants = [
        numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("w", (channels, 16, 3, 3)), ("b", (channels,)))
    ]
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"])
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, count, side, side])
        for name, count, side in (("x", 16, 8), ("y", channels, 6))
    ]
    graph = helper.make_graph([node], "net", ports[:1], ports[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    executor, _, folder = build_model(model)
    size = (folder / "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin").stat().st_size
    assert size == 64 + 64 + channels * 16 * 9 * 2 + (128 if in_file else 0)
    x = {"x": random.standard_normal((1, 16, 8, 8)).astype(np.float32)}
    reference = OnnxRunner(ir.from_proto(model), optimize=False).run(x)
    assert compare_outputs([reference], [executor.run(x)])[0].sqnr_db >= 55
