"""Shapes, slices, joins and paddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def _ints(values: Any) -> list[int]:
    return [int(value) for value in np.ravel(values)]


def _reshape(x: Any, shape: Any, **_: Any) -> Any:
    return np.reshape(x, [np.shape(x)[axis] if dim == 0 else dim for axis, dim in enumerate(_ints(shape))])


def _flatten2d(x: Any, axis: Any = 1, **_: Any) -> Any:
    lead = int(np.prod(x.shape[: int(axis)]))
    return x.reshape(lead, -1)


def _expand_dims(x: Any, axes: Any, **_: Any) -> Any:
    return np.expand_dims(x, tuple(_ints(axes)))


def _squeeze(x: Any, axes: Any = None, **_: Any) -> Any:
    return np.squeeze(x, None if axes is None else tuple(_ints(axes)))


def _slice_by_index(
    x: Any, begin: Any, end: Any, stride: Any = None, begin_mask: Any = None, end_mask: Any = None,
    squeeze_mask: Any = None, **_: Any,
) -> Any:  # fmt: skip
    """Python's slices, an open border where a mask says so."""
    cuts: list[Any] = []
    for axis in range(x.ndim):
        if squeeze_mask is not None and squeeze_mask[axis]:
            cuts.append(int(begin[axis]))
            continue
        first = None if begin_mask is not None and begin_mask[axis] else int(begin[axis])
        last = None if end_mask is not None and end_mask[axis] else int(end[axis])
        cuts.append(slice(first, last, 1 if stride is None else int(stride[axis])))
    return x[tuple(cuts)]


def _slice_by_size(x: Any, begin: Any, size: Any, **_: Any) -> Any:
    pairs = zip(_ints(begin), _ints(size), strict=True)
    return x[tuple(slice(start, None if length == -1 else start + length) for start, length in pairs)]


def _split(x: Any, axis: Any, num_splits: Any = None, split_sizes: Any = None, **_: Any) -> Any:
    if split_sizes is None:
        return np.split(x, int(num_splits), int(axis))
    return np.split(x, np.cumsum(_ints(split_sizes))[:-1], int(axis))


def _concat(values: Any, axis: Any, interleave: Any = False, **_: Any) -> Any:
    if interleave:
        raise ValueError("interleave, which the converter never writes")
    return np.concatenate(values if isinstance(values, list) else [values], int(axis))


def _stack(values: Any, axis: Any, **_: Any) -> Any:
    return np.stack(values if isinstance(values, list) else [values], int(axis))


def _pad(x: Any, pad: Any, mode: str = "constant", constant_val: Any = 0, **_: Any) -> Any:
    """``pad`` lists before and after for the last axes."""
    flat = _ints(pad)
    pairs = [(0, 0)] * (x.ndim - len(flat) // 2) + list(zip(flat[::2], flat[1::2], strict=True))
    if mode == "constant":
        return np.pad(x, pairs, constant_values=constant_val)
    return np.pad(x, pairs, mode={"reflect": "reflect", "replicate": "edge"}[mode])  # type: ignore[call-overload]


def _depth_to_space(x: Any, block_size: Any, **_: Any) -> Any:
    """As TensorFlow's, in NCHW: the channels hold (row in block, column in block, channel)."""
    n, c, h, w = x.shape
    b = int(block_size)
    return x.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)


def _space_to_depth(x: Any, block_size: Any, **_: Any) -> Any:
    n, c, h, w = x.shape
    b = int(block_size)
    return x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4).reshape(n, c * b**2, h // b, w // b)


def _pixel_shuffle(x: Any, upscale_factor: Any, **_: Any) -> Any:
    """As PyTorch's: the channels hold (channel, row in block, column in block)."""
    n, c, h, w = x.shape
    b = int(upscale_factor)
    return x.reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // b**2, h * b, w * b)


def _pixel_unshuffle(x: Any, downscale_factor: Any, **_: Any) -> Any:
    """The inverse of ``_pixel_shuffle``."""
    n, c, h, w = x.shape
    b = int(downscale_factor)
    return x.reshape(n, c, h // b, b, w // b, b).transpose(0, 1, 3, 5, 2, 4).reshape(n, c * b**2, h // b, w // b)


def _fill(shape: Any, value: Any = 0.0, **_: Any) -> Any:
    return np.full(_ints(shape), value)


def _range(start: Any, end: Any, step: Any, **_: Any) -> Any:
    return np.arange(start, end, step)


def _transpose(x: Any, perm: Any, **_: Any) -> Any:
    return np.transpose(x, _ints(perm))


def _tile(x: Any, reps: Any, **_: Any) -> Any:
    return np.tile(x, _ints(reps))


def _shape(x: Any, **_: Any) -> Any:
    return np.array(np.shape(x), np.int32)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "reshape": _reshape,
    "flatten2d": _flatten2d,
    "expand_dims": _expand_dims,
    "squeeze": _squeeze,
    "transpose": _transpose,
    "slice_by_index": _slice_by_index,
    "slice_by_size": _slice_by_size,
    "split": _split,
    "concat": _concat,
    "stack": _stack,
    "tile": _tile,
    "pad": _pad,
    "shape": _shape,
    "fill": _fill,
    "range_1d": _range,
    "depth_to_space": _depth_to_space,
    "space_to_depth": _space_to_depth,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
}
