"""Reductions along axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def _log_sum_exp(x: Any, axis: Any, keepdims: bool) -> Any:
    largest = x.max(axis=axis, keepdims=True)
    total = np.log(np.exp(x - largest).sum(axis=axis, keepdims=True)) + largest
    return total if keepdims else np.squeeze(total, axis=axis)


def _along(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(x: Any, axes: Any = None, keep_dims: Any = False, **_: Any) -> Any:
        listed = tuple(range(x.ndim)) if axes is None else tuple(int(axis) for axis in np.ravel(axes))
        return function(x, axis=listed, keepdims=bool(keep_dims))

    return run


def _index(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, axis=-1, keep_dims=False, **_: function(x, axis=int(axis), keepdims=bool(keep_dims))


def _cumsum(x: Any, axis: Any = 0, exclusive: Any = False, reverse: Any = False, **_: Any) -> Any:
    x = np.flip(x, int(axis)) if reverse else x
    y = np.cumsum(x, axis=int(axis), dtype=x.dtype)
    y = y - x if exclusive else y
    return np.flip(y, int(axis)) if reverse else y


def _topk(x: Any, k: Any = 1, axis: Any = -1, ascending: Any = False, **_: Any) -> Any:
    """The first of equal elements comes first."""
    axis = int(axis)
    order = np.argsort(x if ascending else -x, axis=axis, kind="stable")
    order = np.take(order, np.arange(int(k)), axis=axis)
    return [np.take_along_axis(x, order, axis=axis), order]


OPERATIONS: dict[str, Callable[..., Any]] = {
    "reduce_mean": _along(np.mean),
    "reduce_sum": _along(np.sum),
    "reduce_max": _along(np.max),
    "reduce_min": _along(np.min),
    "reduce_prod": _along(np.prod),
    "reduce_l1_norm": _along(lambda x, **how: np.sum(np.abs(x), **how)),
    "reduce_l2_norm": _along(lambda x, **how: np.sqrt(np.sum(np.square(x), **how))),
    "reduce_log_sum": _along(lambda x, **how: np.log(np.sum(x, **how))),
    "reduce_log_sum_exp": _along(_log_sum_exp),
    "reduce_sum_square": _along(lambda x, **how: np.sum(np.square(x), **how)),
    "reduce_argmax": _index(np.argmax),
    "reduce_argmin": _index(np.argmin),
    "cumsum": _cumsum,
    "topk": _topk,
}
