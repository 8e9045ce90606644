"""A depthwise convolution and the pointwise one that alone reads it: one operator where that pays, beside ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.quantize import quantize
from edgewise.runtime.data import random_data
from edgewise.targets import find_device
from edgewise.targets.cpu import TARGET
from edgewise.targets.cpu.native.compile import Compiled, compile_model
from edgewise.targets.cpu.native.plan import Isa
from edgewise.targets.nodes import tensor_spec

pytestmark = pytest.mark.usefixtures("libedgewise")


def block(
    g: Any, channels: int = 48, outputs: int = 40, stride: int = 1, *, residual: bool = False, reader: bool = False,
    size: int | str = 20,
) -> ir.Model:  # fmt: skip
    """An inverted residual block of MobileNet's kind; with ``reader`` something else reads the depthwise layer's output too."""
    x = g.add("Conv", ["x", g.weights("e", channels, outputs, 1, 1)], "e1")
    x = g.add("Clip", [x, g.constant("low", np.float32(0)), g.constant("high", np.float32(6))], "e2")
    how = {"group": channels, "strides": [stride] * 2, "pads": [1] * 4}
    x = g.add("Conv", [x, g.weights("d", channels, 1, 3, 3), g.weights("db", channels)], "d1", **how)
    depthwise = x = g.add("Relu", [x], "d2")
    y = g.add("Conv", [x, g.weights("p", outputs, channels, 1, 1), g.weights("pb", outputs)], "p1")
    if residual:
        y = g.add("Add", [y, "x"], "p2")
    if reader:
        y = g.add("Add", [y, g.add("ReduceMean", [depthwise], "m", keepdims=1)], "p2")
    g.add("Relu", [y], "y")
    out = size if isinstance(size, str) else -(-size // stride)
    dims = [1, outputs, size, size]
    model: ir.Model = g.model({"x": dims}, {"y": [1, outputs, out, out]})
    return model


def int8(model: ir.Model) -> ir.Model:
    data = random_data([tensor_spec(value) for value in model.graph.inputs], 2, seed=1, dynamic=12)
    spec = TARGET.quantization("int8", find_device("x86-64-v4-vnni", "cpu"))
    return quantize(model, spec, data, method="minmax", samples=2, allow_random=True).model


def compiled(model: ir.Model) -> Compiled:
    return compile_model(model, Isa.AVX512VNNI)


def kinds(model: ir.Model) -> list[str]:
    return [op.op for op in compiled(model).plan.ops if op.op in ("conv", "depthwise", "separable")]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("integer", [False, True])
def test_one_operator_of_two_layers(
    integer: bool, stride: int, graph_maker: Any, sample: Any, run_native: Any, run_onnx: Any, worst_db: Any
) -> None:
    model = block(graph_maker(2), stride=stride, residual=stride == 1)
    model = int8(model) if integer else model
    assert kinds(model) == ["conv", "separable"]
    inputs = sample(model)
    for threads in (1, 2):
        assert worst_db(run_onnx(model, inputs), run_native(model, inputs, threads)) > (38 if integer else 110)


def test_of_any_height_and_width(graph_maker: Any, sample: Any, run_native: Any, run_onnx: Any, worst_db: Any) -> None:
    model = block(graph_maker(2), residual=True, size="n")
    assert kinds(model) == ["conv", "separable"]
    for size in (5, 31):
        inputs = sample(model, size)
        assert worst_db(run_onnx(model, inputs), run_native(model, inputs)) > 110


def test_multiplications_are_those_of_both(graph_maker: Any) -> None:
    found = compiled(block(graph_maker(2)))
    pair = next(op for op in found.plan.ops if op.op == "separable")
    assert found.macs[pair.name].constant == 400 * 48 * (9 + 40)
    assert sum(macs.constant or 0 for macs in found.macs.values()) == 400 * 48 * (40 + 9 + 40)


def test_what_is_between_has_no_memory(graph_maker: Any) -> None:
    """Of 48 channels; x, the 48 channels before it and y have."""
    plan = compiled(block(graph_maker(2))).plan
    storages = {tensor.storage for op in plan.ops for tensor in [*op.inputs, *op.outputs] if tensor and tensor.storage}
    assert sorted(storage.size_bytes.constant or 0 for storage in storages) == [64000, 64000, 76800]


def test_not_where_somebody_else_reads_the_depthwise_layer(graph_maker: Any) -> None:
    assert kinds(block(graph_maker(2), outputs=48, reader=True)) == ["conv", "depthwise", "conv"]


def test_not_where_it_was_measured_slower(graph_maker: Any) -> None:
    """Many channels to few, in float32: the pointwise layer reads its input where it lies in any case."""
    model = block(graph_maker(2), channels=128, outputs=32)
    assert kinds(model) == ["conv", "depthwise", "conv"]
    assert kinds(int8(model)) == ["conv", "separable"]
