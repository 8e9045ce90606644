"""Convolutions 3x3 become the operator winograd where that pays, and compute the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.targets.cpu.native.compile import compile_model
from edgewise.targets.cpu.native.packing import pack_winograd
from edgewise.targets.cpu.native.plan import Isa

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


def test_other_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"float32 \[M, C, 3, 3\], not int8"):
        pack_winograd(np.zeros((4, 4, 3, 3), np.int8))
