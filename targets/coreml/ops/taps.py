"""GridSample that MIL has no operation for (cubic, volumes): each pixel that a place reads is gathered and weighed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building

_CUBIC_ALPHA = -0.75
_LINEAR = 2
TAPS = {"nearest": 1, "linear": 2, "bilinear": 2, "cubic": 4, "bicubic": 4}


def sampled(b: Building) -> Any:
    """X [n, c, sizes…] at a grid [n, places…, axes], whose last axis counts from the last of X; all of fixed size."""
    batch, channels, *sizes = (int(dim or 0) for dim in b.dims(0))
    places = [int(dim or 0) for dim in b.dims(1)[1:-1]]
    flat = b.mb.reshape(x=b.x(0), shape=[batch, channels, int(np.prod(sizes))])
    grid = b.mb.reshape(x=b.x(1), shape=[batch, int(np.prod(places)), len(sizes)])
    components = reversed(b.mb.split(x=grid, num_splits=len(sizes), axis=2))
    axes = [
        _taps(b, b.mb.squeeze(x=component, axes=[2]), size) for component, size in zip(components, sizes, strict=True)
    ]
    total = None
    for chosen in product(*axes):
        index, weight = _combined(b, chosen, sizes)
        value = b.mb.gather(x=flat, indices=index, axis=2, batch_dims=1)
        if weight is not None:
            value = b.mb.mul(x=value, y=b.mb.expand_dims(x=weight, axes=[1]))
        total = value if total is None else b.mb.add(x=total, y=value)
    return b.mb.reshape(x=total, shape=[batch, channels, *places])


def _taps(b: Building, component: Any, size: int) -> list[tuple[Any, Any]]:
    """The pixels along one axis that places [n, p] in [-1, 1] read: index (int32) and weight (None: 1) of each.

    Places stay in float32: at pixel 600 the numbers of float16 are half a pixel apart.
    """
    aligned, padding = bool(b.integer("align_corners")), b.text("padding_mode", "zeros")
    scale, shift = ((size - 1) / 2, (size - 1) / 2) if aligned else (size / 2, (size - 1) / 2)
    place = b.mb.add(x=b.mb.mul(x=component, y=b.like(scale, 1)), y=b.like(shift, 1))
    count = TAPS[b.text("mode", "linear")]
    if count == 1:
        place = b.mb.round(x=place)
    if count <= _LINEAR:  # a cubic takes its four pixels around the place itself, as PyTorch does
        place = _inside(b, place, size, aligned, padding)
    first = place if count == 1 else b.mb.floor(x=place)
    weights = [None] if count == 1 else _weights(b, b.mb.sub(x=place, y=first), count)
    taps = [
        _pixel(b, b.mb.add(x=first, y=b.like(number - (count - 1) // 2, 1)), weight, size, aligned, padding)
        for number, weight in enumerate(weights)
    ]
    for var in (var for tap in taps for var in tap if var is not None):
        b.values.keep(var, b)
    return taps


def _inside(b: Building, place: Any, size: int, aligned: bool, padding: str) -> Any:
    """Places outside brought inside, or left where zeros are read there."""
    if padding == "border":
        return b.mb.clip(x=place, alpha=b.like(0, 1), beta=b.like(size - 1, 1))
    if padding == "zeros":
        return place
    low, span = (0.0, size - 1) if aligned else (-0.5, size)
    if span == 0:
        return b.mb.mul(x=place, y=b.like(0, 1))
    turned = b.mb.mod(x=b.mb.sub(x=place, y=b.like(low, 1)), y=b.like(2 * span, 1))
    folded = b.mb.sub(x=b.like(span, 1), y=b.mb.abs(x=b.mb.sub(x=turned, y=b.like(span, 1))))
    return b.mb.add(x=folded, y=b.like(low, 1))


def _pixel(b: Building, place: Any, weight: Any, size: int, aligned: bool, padding: str) -> tuple[Any, Any]:
    place = _inside(b, place, size, aligned, padding)
    if padding == "zeros":
        low = b.mb.greater_equal(x=place, y=b.like(0, 1))
        within = b.mb.logical_and(x=low, y=b.mb.less_equal(x=place, y=b.like(size - 1, 1)))
        real = b.mb.cast(x=within, dtype="fp16" if b.dtype(0) == "float16" else "fp32")
        weight = real if weight is None else b.mb.mul(x=weight, y=real)
    held = b.mb.clip(x=place, alpha=b.like(0, 1), beta=b.like(size - 1, 1))
    return b.mb.cast(x=held, dtype="int32"), weight


def _weights(b: Building, rest: Any, count: int) -> list[Any]:
    """Of the pixels around a place that lies ``rest`` behind a pixel: linear, or Keys' cubic convolution."""
    other = b.mb.sub(x=b.like(1, 1), y=rest)
    if count == _LINEAR:
        return [other, rest]
    return [_far(b, rest), _near(b, rest), _near(b, other), _far(b, other)]


def _near(b: Building, distance: Any) -> Any:
    """((α+2)·d − (α+3))·d² + 1 for a distance d below 1."""
    inner = b.mb.sub(x=b.mb.mul(x=distance, y=b.like(_CUBIC_ALPHA + 2, 1)), y=b.like(_CUBIC_ALPHA + 3, 1))
    return b.mb.add(x=b.mb.mul(x=inner, y=b.mb.square(x=distance)), y=b.like(1, 1))


def _far(b: Building, distance: Any) -> Any:
    """α·d·(d−1)² is what the cubic gives at the distance d + 1: the far pixel on the side of ``distance``."""
    left = b.mb.square(x=b.mb.sub(x=distance, y=b.like(1, 1)))
    return b.mb.mul(x=b.mb.mul(x=distance, y=left), y=b.like(_CUBIC_ALPHA, 1))


def _combined(b: Building, chosen: Sequence[tuple[Any, Any]], sizes: Sequence[int]) -> tuple[Any, Any]:
    """The index into the flat image, and the product of the weights (None: 1)."""
    index, weight = chosen[0]
    for (place, more), size in zip(chosen[1:], sizes[1:], strict=True):
        index = b.mb.add(x=b.mb.mul(x=index, y=np.int32(size)), y=place)
        weight = more if weight is None else weight if more is None else b.mb.mul(x=weight, y=more)
    return index, weight
