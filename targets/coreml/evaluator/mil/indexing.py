"""Gather and scatter. From iOS 17 on a negative index is out of bounds, and here an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

_NEGATIVE_ALLOWED = ("CoreML5", "CoreML6")


def _checked(indices: Any, sizes: Any, opset: str) -> Any:
    indices = np.asarray(indices, np.int64)
    lowest = -np.asarray(sizes) if opset in _NEGATIVE_ALLOWED else 0
    if (indices < lowest).any() or (indices >= np.asarray(sizes)).any():
        raise IndexError(f"an index outside {np.max(lowest)} to {np.min(sizes) - 1}")
    return np.where(indices < 0, indices + np.asarray(sizes), indices)


def _gather(x: Any, indices: Any, axis: Any = 0, opset: str = "", batch_dims: Any = 0, **_: Any) -> Any:
    """The first ``batch_dims`` axes are those of both; ``axis`` counts them too."""
    axis, batch = int(axis) % x.ndim, int(batch_dims)
    indices = _checked(indices, x.shape[axis], opset)
    if batch == 0:
        return np.take(x, indices, axis=axis)
    lead = x.shape[:batch]
    parts = [np.take(x[place], indices[place], axis=axis - batch) for place in np.ndindex(*lead)]
    return np.stack(parts).reshape(*lead, *parts[0].shape)


def _gather_along_axis(x: Any, indices: Any, axis: Any = 0, opset: str = "", **_: Any) -> Any:
    """The other axes of ``indices`` may be shorter than those of ``x``: they count from 0."""
    axis = int(axis) % x.ndim
    indices = _checked(indices, x.shape[axis], opset)
    return x[_grid(indices, axis)]


def _grid(indices: Any, axis: int) -> tuple[Any, ...]:
    """Indices of every element of ``indices``, with its own value along ``axis``."""
    grid = list(np.indices(indices.shape, sparse=True))
    grid[axis] = indices
    return tuple(grid)


def _gather_nd(x: Any, indices: Any, batch_dims: Any = 0, opset: str = "", **_: Any) -> Any:
    batch, depth = int(batch_dims), indices.shape[-1]
    indices = _checked(indices, x.shape[batch : batch + depth], opset)
    if batch == 0:
        return x[tuple(np.moveaxis(indices, -1, 0))]
    lead = x.shape[:batch]
    rows = [_gather_nd(x[place], indices[place], opset=opset) for place in np.ndindex(*lead)]
    return np.stack(rows).reshape(*lead, *rows[0].shape)


_MODES: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
}


def _put(data: Any, places: tuple[Any, ...], updates: Any, mode: str) -> Any:
    y = np.array(data)
    if mode == "update":
        y[places] = updates
    else:
        _MODES[mode].at(y, places, updates)  # type: ignore[attr-defined]
    return y


def _scatter_nd(data: Any, indices: Any, updates: Any, mode: str = "add", opset: str = "", **_: Any) -> Any:
    indices = _checked(indices, data.shape[: indices.shape[-1]], opset)
    return _put(data, tuple(np.moveaxis(indices, -1, 0)), updates, mode)


def _scatter_along_axis(
    data: Any, indices: Any, updates: Any, axis: Any = 0, mode: str = "add", opset: str = "", **_: Any
) -> Any:
    axis = int(axis) % data.ndim
    return _put(data, _grid(_checked(indices, data.shape[axis], opset), axis), updates, mode)


def _non_zero(x: Any, **_: Any) -> Any:
    return np.argwhere(x)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "gather": _gather,
    "gather_along_axis": _gather_along_axis,
    "gather_nd": _gather_nd,
    "scatter_nd": _scatter_nd,
    "scatter_along_axis": _scatter_along_axis,
    "non_zero": _non_zero,
}
