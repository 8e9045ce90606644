"""Zeros in blocks reach the kernels that leave them out; other zeros do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets.cpu.native.compile import compile_model
from edgewise.targets.cpu.native.plan import Isa

RunNative = Callable[..., list[np.ndarray]]
INPUTS, OUTPUTS, TOKENS = 128, 64, 40


def linear(weights: np.ndarray) -> ir.Model:
    text = f"""<ir_version: 10, opset_import: ["" : 18]> net (float[1,{TOKENS},{INPUTS}] x, float[{INPUTS},{OUTPUTS}] w)
        => (float[1,{TOKENS},{OUTPUTS}] y) {{ y = MatMul(x, w) }}"""
    model = ir.from_onnx_text(text)
    value = model.graph.inputs.pop(1)
    value.const_value = ir.tensor(weights, name="w")
    model.graph.register_initializer(value)
    return model


def weights_in_blocks(outputs: int) -> np.ndarray:
    """Three of four blocks of one input by ``outputs`` outputs are zero."""
    rng = np.random.default_rng(0)
    kept = rng.permutation(INPUTS * OUTPUTS // outputs).reshape(INPUTS, -1) % 4 == 0
    return (rng.normal(size=(INPUTS, OUTPUTS)) * kept.repeat(outputs, axis=1)).astype(np.float32)


def conv_of(model: ir.Model) -> Any:
    (op,) = [op for op in compile_model(model, Isa.GENERIC).plan.ops if op.op == "conv"]
    return op


@pytest.mark.parametrize("outputs", [4, 2])
def test_zeros_in_blocks_are_left_out(outputs: int, run_native: RunNative) -> None:
    weights = weights_in_blocks(outputs)
    op = conv_of(linear(weights))
    assert op.attributes["outputs"] == outputs
    assert op.inputs[1].data.size == np.count_nonzero(weights)
    x = np.random.default_rng(1).normal(size=(1, TOKENS, INPUTS)).astype(np.float32)
    expected = OnnxRunner(linear(weights)).run({"x": x})["y"]
    np.testing.assert_allclose(run_native(linear(weights), {"x": x})[0], expected, rtol=1e-4, atol=1e-4)


def test_few_zeros_stay_where_they_are() -> None:
    rng = np.random.default_rng(0)
    weights = (rng.normal(size=(INPUTS, OUTPUTS)) * (rng.random((INPUTS, OUTPUTS)) > 0.1)).astype(np.float32)
    op = conv_of(linear(weights))
    assert "outputs" not in op.attributes
    assert op.inputs[1].data.size == weights.size
