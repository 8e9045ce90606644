"""Convolutions 3x3 become the operator winograd where that pays, and compute the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.quantize import quantize
from edgewise.runtime.data import random_data
from edgewise.targets import find_device
from edgewise.targets.cpu import TARGET
from edgewise.targets.cpu.native.compile import compile_model
from edgewise.targets.cpu.native.packing import pack_winograd
from edgewise.targets.cpu.native.plan import Isa
from edgewise.targets.nodes import tensor_spec

LEAST_DB = 100.0


def network(size: str, inputs: int = 32, stride: int = 1, group: int = 1) -> ir.Model:
    """Two convolutions, with a shortcut around the second one where sizes are known."""
    rng, end = np.random.default_rng(0), "Add(c, r)" if size.isdigit() else "Relu(c)"
    text = f"""<ir_version: 10, opset_import: ["" : 18]> net (float[1,{inputs},{size},{size}] x,
        float[32,{inputs // group},3,3] v, float[32,32,3,3] w, float[32] b) => (float[1,32,h,w2] y) {{
        a = Conv <pads = [1, 1, 1, 1], strides = [{stride}, {stride}], group = {group}> (x, v, b)
        r = Relu(a)
        c = Conv <pads = [1, 1, 1, 1]> (r, w)
        d = {end}
        y = Relu(d) }}"""
    model = ir.from_onnx_text(text)
    for name in ("v", "w", "b"):
        (value,) = [one for one in model.graph.inputs if one.name == name]
        model.graph.inputs.remove(value)
        shape = [int(size) for size in value.shape or []]
        weights = rng.normal(size=shape).astype(np.float32) / np.sqrt(max(1, np.prod(shape[1:])))
        value.const_value = ir.tensor(weights.astype(np.float32), name=name)
        model.graph.register_initializer(value)
    return model


def int8(model: ir.Model) -> ir.Model:
    data = random_data([tensor_spec(value) for value in model.graph.inputs], 4, seed=0)
    spec = TARGET.quantization("int8", find_device("x86-64-v3", "cpu"))
    return quantize(model, spec, data, method="minmax", samples=4, allow_random=True).model


def ops_of(model: ir.Model) -> list[str]:
    return [op.op for op in compile_model(model, Isa.GENERIC).plan.ops if op.op in ("conv", "winograd")]


def test_layers_of_networks_are_chosen(
    run_native: Callable[..., Any], run_onnx: Callable[..., Any], worst_db: Callable[..., float]
) -> None:
    model = network("14")
    assert ops_of(model) == ["winograd", "winograd"]
    inputs = {"x": np.random.default_rng(1).normal(size=(1, 32, 14, 14)).astype(np.float32)}
    assert worst_db(run_onnx(model, inputs), run_native(model, inputs, threads=2)) > LEAST_DB


@pytest.mark.parametrize(
    ("more", "first"),
    [({"inputs": 8}, "conv"), ({"stride": 2}, "conv"), ({"group": 2}, "conv"), ({}, "winograd")],
)
def test_few_inputs_other_steps_and_groups_are_not(more: dict[str, int], first: str) -> None:
    assert ops_of(network("20", **more))[0] == first


@pytest.mark.parametrize("size", ["5", "n"])
def test_few_pixels_and_unknown_sizes_are_not(size: str) -> None:
    assert ops_of(network(size)) == ["conv", "conv"]


def test_transformed_weights_multiply_as_the_paper_says() -> None:
    """One tile by hand: A' ((G g G') * (B' d B)) A is the sum of products in the 3x3 windows."""
    rng = np.random.default_rng(2)
    g, d = rng.normal(size=(1, 1, 3, 3)).astype(np.float32), rng.normal(size=(4, 4))
    points = pack_winograd(g).constants["weights"][0, :, 0, 0, 0].reshape(4, 4)
    b = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
    a = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
    want = [[np.sum(d[y : y + 3, x : x + 3] * g[0, 0]) for x in range(2)] for y in range(2)]
    np.testing.assert_allclose(a @ (points * (b @ d @ b.T)) @ a.T, want, rtol=1e-5, atol=1e-5)


def test_bytes_become_integers_of_16_bits() -> None:
    """Four times the points, channels 0 and 2 and then 1 and 3 of each four; the greatest there are fit."""
    weights = np.full((1, 6, 3, 3), 127, np.int8)
    weights[0, 1:] = np.arange(1, 6)[:, None, None]
    points = pack_winograd(weights).constants["weights"][0, :, 0, :, 0]
    assert points.dtype == np.int16 and points.shape == (16, 4, 2)
    np.testing.assert_array_equal(points[5], [[9 * 127, 9 * 2], [9 * 1, 9 * 3], [9 * 4, 0], [9 * 5, 0]])
    np.testing.assert_array_equal(points[0], points[15])
    assert points[0, 0, 0] == 4 * 127


@pytest.mark.parametrize(
    ("size", "isa", "chosen"),
    [("20", Isa.AVX2, True), ("20", Isa.AVX512, True), ("20", Isa.AVX512VNNI, False), ("20", Isa.GENERIC, False), ("9", Isa.AVX2, False)],
)  # fmt: skip
def test_bytes_take_it_where_there_is_no_vnni(size: str, isa: Isa, chosen: bool) -> None:
    assert ("winograd" in [op.op for op in compile_model(int8(network(size)), isa).plan.ops]) is chosen


def test_bytes_are_those_of_conv(run_native: Callable[..., Any], sample: Callable[..., Any]) -> None:
    model = int8(network("20"))
    inputs = sample(model)
    for there, other in zip(run_native(model, inputs), run_native(model, inputs, isa=Isa.AVX2), strict=True):
        np.testing.assert_array_equal(there, other)


def test_other_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"weights are \[M, C, 3, 3\], not \[4, 4, 5, 5\]"):
        pack_winograd(np.zeros((4, 4, 5, 5), np.int8))
