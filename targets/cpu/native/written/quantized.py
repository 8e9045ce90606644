"""Operators on integers, as ones on real numbers between DequantizeLinear and QuantizeLinear, which lowering computes in bytes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgewise.targets.cpu.native.value import Refusal
from edgewise.targets.cpu.native.written.writer import Writer, constant, given, need, numpy_dtype


def _real(write: Writer, node: ir.Node, index: int, axis: int) -> ir.Value:
    return write("DequantizeLinear", need(node, index), need(node, index + 1), given(node, index + 2), axis=axis)


def qlinear_conv(node: ir.Node, write: Writer) -> list[ir.Value]:
    """A convolution of integers to integers."""
    x, weights, bias = _real(write, node, 0, 1), _real(write, node, 3, 0), constant(node, 8)
    operands = [x, weights]
    if bias is not None:
        scales = [constant(node, index) for index in (1, 4)]
        if scales[0] is None or scales[1] is None:
            raise Refusal("scales that are left out")
        operands.append(
            write("Identity", (bias * np.float64(scales[0]) * scales[1].astype(np.float64)).astype(np.float32))
        )
    kept = {name: attribute.value for name, attribute in node.attributes.items()}
    return [write("QuantizeLinear", write("Conv", *operands, **kept), need(node, 6), given(node, 7))]


def qlinear_matmul(node: ir.Node, write: Writer) -> list[ir.Value]:
    """A product of integers to integers."""
    product = write("MatMul", _real(write, node, 0, -2), _real(write, node, 3, -1))
    return [write("QuantizeLinear", product, need(node, 6), given(node, 7))]


def matmul_integer(node: ir.Node, write: Writer) -> list[ir.Value]:
    """A product of integers less their zero points, to integers: exact in float32 as long as no sum is above 2**24."""
    made = []
    for index in range(2):
        value, point = need(node, index), given(node, index + 2)
        real = write("Cast", value, to=ir.DataType.FLOAT)
        if point is not None:
            points = constant(node, index + 2)
            if points is None or points.size != 1:
                raise Refusal("zero points that are computed, or one for each row")
            real = write("Sub", real, float(points.reshape(-1)[0]))
        made.append(real)
        inner = 1 << (8 * numpy_dtype(value).itemsize)
        if inner > 256:
            raise Refusal("integers of more than 8 bits")
    length = need(node, 1).shape
    count = length[-2] if length is not None and len(length) > 1 else None
    if not isinstance(count, int) or count * 255 * 255 >= 1 << 24:
        raise Refusal("sums that float32 does not hold")
    return [write("Cast", write("MatMul", *made), to=ir.DataType.INT32)]


RULES = {"MatMulInteger": matmul_integer, "QLinearConv": qlinear_conv, "QLinearMatMul": qlinear_matmul}
