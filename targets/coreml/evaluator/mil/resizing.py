"""Interpolation at the grid points that MIL's documentation gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def _grid_points(size: int, wanted: int, mode: str) -> np.ndarray:
    place = np.arange(wanted, dtype=np.float64)
    steps = max(1, wanted - 1)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        points = place * (size - 1) / steps
        if wanted == 1 and mode == "ALIGN_CORNERS":
            points = np.array([(size - 1) / 2])
    elif mode == "DEFAULT":
        points = place * (size - size / wanted) / steps
    elif mode == "OFFSET_CORNERS":
        delta = max(1, size - 1) / wanted
        points = 0.5 * delta + place * delta
    elif mode == "UNALIGN_CORNERS":
        spacing = size / wanted
        points = place * spacing + 0.5 * spacing - 0.5
    else:
        raise ValueError(f"sampling mode {mode!r}")
    return np.clip(points, 0, size - 1)


def _linear(x: Any, axis: int, wanted: int, mode: str) -> Any:
    size = x.shape[axis]
    points = _grid_points(size, wanted, mode)
    low = np.floor(points).astype(int)
    high = np.minimum(low + 1, size - 1)
    shape = [1] * x.ndim
    shape[axis] = wanted
    part = (points - low).astype(np.float32).reshape(shape)
    return np.take(x, low, axis) * (1 - part) + np.take(x, high, axis) * part


def _resize_bilinear(
    x: Any, target_size_height: Any = 1, target_size_width: Any = 1, sampling_mode: str = "DEFAULT", **_: Any
) -> Any:
    y = _linear(x, x.ndim - 2, int(target_size_height), sampling_mode)
    return _linear(y, x.ndim - 1, int(target_size_width), sampling_mode)


def _upsample_bilinear(
    x: Any, scale_factor_height: Any = 1, scale_factor_width: Any = 1, align_corners: Any = True, **_: Any
) -> Any:
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS"
    y = _linear(x, x.ndim - 2, int(np.floor(x.shape[-2] * scale_factor_height)), mode)
    return _linear(y, x.ndim - 1, int(np.floor(x.shape[-1] * scale_factor_width)), mode)


def _upsample_nearest(x: Any, scale_factor_height: Any = 1, scale_factor_width: Any = 1, **_: Any) -> Any:
    for axis, factor in ((-2, scale_factor_height), (-1, scale_factor_width)):
        wanted = int(np.floor(x.shape[axis] * factor))
        x = np.take(x, np.floor(np.arange(wanted) / factor).astype(int), axis)
    return x


OPERATIONS: dict[str, Callable[..., Any]] = {
    "resize_bilinear": _resize_bilinear,
    "upsample_bilinear": _upsample_bilinear,
    "upsample_nearest_neighbor": _upsample_nearest,
}
