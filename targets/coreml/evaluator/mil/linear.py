"""Matrix products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgewise.targets.coreml.evaluator.mil.activation import softmax


def _linear(x: Any, weight: Any, bias: Any = None, **_: Any) -> Any:
    y = x @ weight.T
    return y if bias is None else y + bias


def _matmul(x: Any, y: Any, transpose_x: Any = False, transpose_y: Any = False, **_: Any) -> Any:
    x = x.swapaxes(-1, -2) if transpose_x and x.ndim > 1 else x
    y = y.swapaxes(-1, -2) if transpose_y and y.ndim > 1 else y
    return np.matmul(x, y)


def _attention(query: Any, key: Any, value: Any, attn_mask: Any = None, **_: Any) -> Any:
    scores = query @ key.swapaxes(-1, -2) / np.sqrt(np.float32(query.shape[-1]))
    if attn_mask is not None:
        scores = scores + (np.where(attn_mask, 0, -np.inf) if attn_mask.dtype == bool else attn_mask)
    return softmax(scores) @ value


OPERATIONS: dict[str, Callable[..., Any]] = {
    "linear": _linear,
    "matmul": _matmul,
    "scaled_dot_product_attention": _attention,
}
