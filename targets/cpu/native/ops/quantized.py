"""QuantizeLinear and DequantizeLinear: mostly nothing to do, because values know how their bytes are read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgewise.targets.cpu.native.coded import coded
from edgewise.targets.cpu.native.context import Context, attribute_int, constant_array, quant_of
from edgewise.targets.cpu.native.value import IntegerWeights, Quant, Refusal, Value, constant_value, numpy_name

if TYPE_CHECKING:
    import onnx_ir as ir

_STORED = ("int4", "uint4", "int8", "uint8")


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
    quant = quant_of(node)
    if not value.raw or value.quant != quant:  # the network's own integers, or ones that meant something else before
        value = ctx.builder.bytes_of(value) if value.quant is not None else value
        if value.dtype is not quant.dtype:
            raise Refusal(f"DequantizeLinear of {numpy_name(value.dtype)} by a grid of {numpy_name(quant.dtype)}")
    ctx.give(node, replace(value, quant=quant, raw=False))


def _weights(node: ir.Node, integers: np.ndarray) -> Value:
    scale = None if node.inputs[1] is None else constant_array(node.inputs[1])
    if scale is None:
        raise Refusal("a scale that is computed")
    point = None
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        point = constant_array(node.inputs[2])
    axis = attribute_int(node, "axis", 1)
    found = coded(integers, scale, point, axis, attribute_int(node, "block_size", 0))
    kept = None
    if integers.dtype == np.int8 and not found.zero.any() and scale.ndim <= 1:
        kept = IntegerWeights(integers, found.scale.reshape(-1), found.axis)
    value = constant_value(found.real, kept)
    return replace(value, coded=found) if integers.dtype.name in _STORED else value
