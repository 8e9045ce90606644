"""MatMul and Gemm; Einsum has a file of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.node import NodeView, is_weight
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import FLOATS, NUMBERS, Row

_LINEAR_RANKS = (2, 3)


def _weight(b: Building, index: int, transpose: bool, factor: float = 1.0) -> Any:
    """A constant weight as MIL's ``linear`` wants it, [outputs, inputs]; integers stay integers."""
    packed = b.packed(index)
    if packed is not None:
        return (packed.transposed([1, 0]) if transpose else packed).scaled(factor).var(b.mb)
    array = b.const(index)
    if array is None:  # a weight that was moved about after DequantizeLinear
        return b.mb.transpose(x=b.x(index), perm=[1, 0]) if transpose else b.x(index)
    array = array.T if transpose else array
    array = np.ascontiguousarray(array if factor == 1 else array * array.dtype.type(factor))
    return b.values.weight(array, b.label, 0)


def _matmul(b: Building) -> Any:
    """Constant weights on the right and up to three ranks on the left are what MIL's ``linear`` is."""
    if b.is_float() and is_weight(b.value(1)) and b.rank(1) == 2 and b.rank(0) in _LINEAR_RANKS:
        return b.mb.linear(x=b.x(0), weight=_weight(b, 1, transpose=True))
    y = b.weight(1, 1) if b.is_float() and b.rank(1) == 2 else b.x(1)
    return _vectors(b, y) if 1 in (b.rank(0), b.rank(1)) else b.mb.matmul(x=b.x(0), y=y)


def _vectors(b: Building, y: Any) -> Any:
    """A vector is a matrix of one row (on the left) or one column (on the right), which the result then lacks."""
    row, column = b.rank(0) == 1, b.rank(1) == 1
    x = b.mb.expand_dims(x=b.x(0), axes=[0]) if row else b.x(0)
    y = b.mb.expand_dims(x=y, axes=[1]) if column else y
    product = b.mb.matmul(x=x, y=y)
    return b.mb.squeeze(x=product, axes=[axis for axis, given in ((-2, row), (-1, column)) if given])


def _fits_linear(b: Building) -> bool:
    if not is_weight(b.value(1)) or b.integer("transA"):
        return False
    if b.const(1) is None and b.packed(1) is None and b.real("alpha", 1.0) != 1.0:
        return False
    bias = b.const(2)
    return not b.given(2) or (bias is not None and bias.size in (1, b.dims(1)[0 if b.integer("transB") else 1]))


def _gemm(b: Building) -> Any:
    alpha, beta = b.real("alpha", 1.0), b.real("beta", 1.0)
    if _fits_linear(b):
        weight = _weight(b, 1, transpose=not b.integer("transB"), factor=alpha)
        return b.mb.linear(x=b.x(0), weight=weight, bias=_linear_bias(b, beta))
    y = b.mb.matmul(x=b.x(0), y=b.x(1), transpose_x=bool(b.integer("transA")), transpose_y=bool(b.integer("transB")))
    if alpha != 1:
        y = b.mb.mul(x=y, y=b.like(alpha))
    if b.given(2):
        y = b.mb.add(x=y, y=b.x(2) if beta == 1 else b.mb.mul(x=b.x(2), y=b.like(beta, 2)))
    return y


def _linear_bias(b: Building, beta: float) -> Any:
    bias = b.const(2)
    if bias is None:
        return None
    width = int(b.dims(1)[0 if b.integer("transB") else 1] or 0)
    return b.array(np.broadcast_to(bias.reshape(-1), (width,)) * bias.dtype.type(beta))


def _check_gemm(node: NodeView) -> Refusal | None:
    if node.rank(0) != 2 or node.rank(1) != 2:
        return Refusal(f"ranks {node.rank(0)} and {node.rank(1)}", "matrices", "Reshape to rank 2", "inputs A and B")
    return None


ROWS = (
    Row("MatMul", _matmul, weights=(0, 1), dtypes=NUMBERS, stack=True),
    Row("Gemm", _gemm, _check_gemm, weights=(0, 1, 2), dtypes=FLOATS),
)
