"""Our own ONNX forms for PyTorch operators whose stock translation is needlessly hard on engines."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import opset18

op: Any = opset18  # its type stubs know no graph values
# Added to the score of a hidden position: after softmax its weight is exactly zero, and float16 still holds the difference.
_HIDDEN = float(np.finfo(np.float32).min)


def attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """``scaled_dot_product_attention``: Mul, Transpose, MatMul, (Add), Softmax, MatMul.

    The stock form swaps the key's dims with a chain of Shape, Slice, Concat and Reshape, scales twice, and looks for NaN. Shapes:
    query [.., L, E], key [.., S, E], value [.., S, V], mask broadcastable to [.., L, S]; inference only, so no dropout.
    """
    rank = len(query.shape)
    if enable_gqa:
        key, value = (_repeat_heads(tensor, query) for tensor in (key, value))
    swapped = op.Transpose(key, perm=[*range(rank - 2), rank - 1, rank - 2])
    scores = op.MatMul(op.Mul(query, op.CastLike(_factor(query, scale), query)), swapped)
    if is_causal:
        attn_mask = _causal_mask(query, key)
    if attn_mask is not None:
        scores = op.Add(scores, _additive(attn_mask, query, boolean=is_causal))
    return op.MatMul(op.Softmax(scores, axis=-1), value)


def _factor(query: Any, scale: float | None) -> Any:
    """What the scores are multiplied with: 1/sqrt of a head's size, unless given."""
    size = query.shape[-1]
    if scale is None and not isinstance(size, int):  # converted TorchScript computes it
        last = op.Cast(op.Shape(query, start=-1), to=ir.DataType.FLOAT)
        return op.Reciprocal(op.Sqrt(last))
    return op.Constant(value_float=scale if scale is not None else 1 / math.sqrt(size))


def _additive(mask: Any, like: Any, *, boolean: bool) -> Any:
    """A boolean mask (True: visible) as what is added to the scores."""
    if not boolean and mask.dtype.name != "BOOL":
        return mask
    hidden = op.CastLike(op.Constant(value_float=_HIDDEN), like)
    return op.Where(mask, op.CastLike(op.Constant(value_float=0.0), like), hidden)


def _causal_mask(query: Any, key: Any) -> Any:
    """bool[L, S], True where the key is not after the query."""
    zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
    rows = op.Range(zero, op.Squeeze(op.Shape(query, start=-2, end=-1)), one)
    columns = op.Range(zero, op.Squeeze(op.Shape(key, start=-2, end=-1)), one)
    last = op.Constant(value_ints=[-1])
    return op.GreaterOrEqual(op.Unsqueeze(rows, last), columns)


def _repeat_heads(tensor: Any, query: Any) -> Any:
    """Grouped queries: [batch, heads/groups, length, size], each head repeated for its group of queries."""
    groups = query.shape[1] // tensor.shape[1]
    spread = op.Expand(op.Unsqueeze(tensor, op.Constant(value_ints=[2])), op.Constant(value_ints=[1, 1, groups, 1, 1]))
    return op.Reshape(spread, op.Constant(value_ints=[0, query.shape[1], -1, tensor.shape[3]]))


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.scaled_dot_product_attention.default: attention,
}
