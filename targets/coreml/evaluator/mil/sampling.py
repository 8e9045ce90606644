"""Sampling of images at computed places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def _pixels(place: Any, size: int, aligned: bool) -> Any:
    """From [-1, 1] to pixel numbers: the ends are the centres of the border pixels, or their outer edges."""
    return (place + 1) / 2 * (size - 1) if aligned else ((place + 1) * size - 1) / 2


def _folded(place: Any, size: int, mode: str) -> Any:
    """Places outside brought inside by padding modes that copy pixels."""
    if mode == "border":
        return np.clip(place, 0, size - 1)
    low, span = (0, size - 1) if mode == "reflection" else (-0.5, size)
    if span == 0:
        return np.zeros_like(place)
    turned = np.abs(np.mod(place - low, 2 * span))
    return np.clip(np.where(turned > span, 2 * span - turned, turned) + low, 0, size - 1)


def _at(x: Any, row: Any, column: Any, fill: float) -> Any:
    """Elements of x [n, c, h, w] at integer places [n, h2, w2]: [n, c, h2, w2]; ``fill`` outside."""
    height, width = x.shape[-2:]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    batch = np.arange(x.shape[0]).reshape(-1, 1, 1)
    found = x[batch, :, np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)].transpose(0, 3, 1, 2)
    return np.where(inside[:, None], found, fill)


def _resample(
    x: Any, coordinates: Any, sampling_mode: str, padding_mode: str, padding_value: Any, coordinates_mode: str,
    align_corners: Any, **_: Any,
) -> Any:  # fmt: skip
    if coordinates_mode not in ("normalized_minus_one_to_one", "unnormalized"):
        raise ValueError(f"coordinates {coordinates_mode}, which the converter never writes")
    places = []
    for axis, size in ((1, x.shape[2]), (0, x.shape[3])):
        place = coordinates[..., axis].astype(np.float64)
        place = place if coordinates_mode == "unnormalized" else _pixels(place, size, bool(align_corners))
        places.append(place if padding_mode == "constant" else _folded(place, size, padding_mode))
    rows, columns = places
    fill = float(padding_value)
    if sampling_mode == "nearest":
        return _at(x, np.round(rows).astype(int), np.round(columns).astype(int), fill)
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = (rows - top)[:, None], (columns - left)[:, None]
    upper = _at(x, top, left, fill) * (1 - right) + _at(x, top, left + 1, fill) * right
    lower = _at(x, top + 1, left, fill) * (1 - right) + _at(x, top + 1, left + 1, fill) * right
    return upper * (1 - down) + lower * down


OPERATIONS: dict[str, Callable[..., Any]] = {"resample": _resample}
