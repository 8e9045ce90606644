"""QuantizeLinear and DequantizeLinear: mostly nothing to do, because values know how their bytes are read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgewise.targets.cpu.native.context import Context, attribute_int, constant_array, quant_of
from edgewise.targets.cpu.native.value import IntegerWeights, Quant, Refusal, Value, constant_value

if TYPE_CHECKING:
    import onnx_ir as ir


def quantize(node: ir.Node, ctx: Context) -> None:
    """Say how the value is rounded; who reads it does it, in the layout that it wants."""
    value, quant = ctx.input(node, 0), quant_of(node)
    ctx.give(node, replace(on_grid(value, quant, ctx), raw=True))


def on_grid(value: Value, quant: Quant, ctx: Context) -> Value:
    """A value rounded to a grid."""
    if value.array is not None:
        return replace(constant_value(quant.rounded(value.array)), quant=quant)
    if value.quant == quant:
        return value
    if value.quant is None:
        return replace(value, quant=quant)
    given = ctx.builder.bytes_of(value)
    return ctx.builder.looked_up(given, quant, quant.rounded(value.quant.real))


def dequantize(node: ir.Node, ctx: Context) -> None:
    """Constants become float (and remember their integers); others are read as real numbers from here on."""
    value = ctx.input(node, 0)
    if value.array is not None:
        ctx.give(node, _weights(node, value.array))
        return
    if not value.raw or value.quant != quant_of(node):
        raise Refusal("DequantizeLinear of integers that no QuantizeLinear of the same scale made")
    ctx.give(node, replace(value, raw=False))


def _weights(node: ir.Node, integers: np.ndarray) -> Value:
    scale = None if node.inputs[1] is None else constant_array(node.inputs[1])
    if scale is None:
        raise Refusal("a scale that is computed")
    point = None
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        point = constant_array(node.inputs[2])
    if "block_size" in node.attributes and attribute_int(node, "block_size", 0):
        raise Refusal("weights quantized in blocks")
    axis = None if scale.size == 1 else attribute_int(node, "axis", 1) % integers.ndim
    shape = [-1 if index == axis else 1 for index in range(integers.ndim)]
    zero = np.zeros(1, np.int64) if point is None else point.astype(np.int64)
    centred = integers.astype(np.int64) - (zero.reshape(shape) if zero.size > 1 else zero.reshape(-1)[0])
    scales = scale.astype(np.float32)
    real = (centred.astype(np.float32) * (scales.reshape(shape) if axis is not None else scales.reshape(-1)[0])).astype(
        np.float32
    )
    kept = None
    if integers.dtype == np.int8 and not zero.any():
        kept = IntegerWeights(integers, scales.reshape(-1), axis)
    return constant_value(real, kept)
