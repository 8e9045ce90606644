"""Resampling along one axis as ONNX defines it, written down as an index or as a matrix [output, input] of weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sampling:
    """How ``Resize`` samples (the names and values of its attributes); ``crop``: what part of the axis, from where to where."""

    mode: str
    coordinates: str
    nearest: str
    cubic_a: float
    exclude_outside: bool
    antialias: bool
    crop: tuple[float, float] | None = None


def positions(how: Sampling, size: int, wanted: int, scale: float) -> np.ndarray:
    """Where each output element lies on the input's axis (float64 [wanted])."""
    place = np.arange(wanted, dtype=np.float64)
    if how.coordinates == "tf_crop_and_resize":
        start, end = how.crop or (0.0, 1.0)
        if wanted == 1:
            return np.full(1, 0.5 * (start + end) * (size - 1))
        return start * (size - 1) + place * (end - start) * (size - 1) / (wanted - 1)
    if how.coordinates == "asymmetric":
        return place / scale
    if how.coordinates == "align_corners":
        return place * (size - 1) / (wanted - 1) if wanted > 1 else np.zeros(wanted)
    if how.coordinates == "pytorch_half_pixel" and wanted == 1:
        return np.zeros(wanted)
    if how.coordinates == "half_pixel_symmetric":
        # The part of the input that the whole outputs cover, centred (ONNX, Resize-19).
        shift = size / 2 * (1 - wanted / (scale * size))
        return shift + (place + 0.5) / scale - 0.5
    return (place + 0.5) / scale - 0.5


def nearest_index(how: Sampling, size: int, wanted: int, scale: float) -> np.ndarray:
    """For ``nearest``: the input element of each output element (int32 [wanted])."""
    place = positions(how, size, wanted, scale)
    if how.nearest.startswith("round"):
        rounded = np.ceil(place - 0.5) if how.nearest == "round_prefer_floor" else np.floor(place + 0.5)
    else:
        rounded = np.floor(place) if how.nearest == "floor" else np.ceil(place)
    return np.asarray(np.clip(rounded, 0, size - 1), np.int32)


def weights(how: Sampling, size: int, wanted: int, scale: float) -> np.ndarray:
    """For ``linear`` and ``cubic``: float32 [wanted, size]; each row sums to 1."""
    place = positions(how, size, wanted, scale)
    stretch = min(1.0, scale) if how.antialias else 1.0
    reach = (1 if how.mode == "linear" else 2) / stretch
    matrix = np.zeros((wanted, size))
    for row, center in enumerate(place):
        first, last = math.floor(center - reach) + 1, math.ceil(center + reach) - 1
        taps = np.arange(min(first, math.floor(center)), max(last, math.floor(center) + 1) + 1)
        weight = _kernel(how, (taps - center) * stretch)
        inside = (taps >= 0) & (taps < size)
        if how.exclude_outside:
            weight = np.where(inside, weight, 0)
        np.add.at(matrix[row], np.clip(taps, 0, size - 1), weight / weight.sum())
    return matrix.astype(np.float32)


def _kernel(how: Sampling, distance: np.ndarray) -> np.ndarray:
    """Triangle, or Keys' cubic convolution (1981) with the coefficient ``cubic_a``."""
    x = np.abs(distance)
    if how.mode == "linear":
        return np.asarray(np.maximum(0, 1 - x))
    a = how.cubic_a
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))
