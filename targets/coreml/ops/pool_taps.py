"""Pools that MIL has no operation for: the elements that a window holds, one strided slice each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from itertools import product
from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.ops.windows import Window
from edgewise.targets.coreml.refusal import Refusal

_MOST_TAPS = 256


def check_taps(node: NodeView) -> Refusal | None:
    """Sizes must be known, and windows small, since each of their elements is a slice."""
    if None in node.dims(0):
        return Refusal("sizes known at run time only", "fixed shapes where a pool has dilations or gives Indices",
                       "Export with fixed shapes", "input X")  # fmt: skip
    count = int(np.prod(node.integers("kernel_shape")))
    if count > _MOST_TAPS:
        return Refusal(f"windows of {count} elements", f"up to {_MOST_TAPS} where a pool has dilations or gives Indices",
                       "Use smaller windows", "attribute kernel_shape")  # fmt: skip
    return None


def max_of_taps(b: Building, place: Window) -> list[Any]:
    """The greatest element of each window, and the first place in the whole input where it is."""
    largest, where = None, None
    lowest = float(np.finfo("float16" if b.values.half else b.dtype(0) or "float32").min)
    for tap, index in zip(_taps(b, place, b.like(lowest)), _indices(b, place), strict=True):
        if largest is None:
            largest, where = tap, b.array(index)
            continue
        if b.used(1):
            where = b.mb.select(cond=b.mb.greater(x=tap, y=largest), a=b.array(index), b=where)
        largest = b.mb.maximum(x=largest, y=tap)
    return [largest, where]


def mean_of_taps(b: Building, place: Window, counted: Window | None) -> Any:
    """The mean of each window over what lies inside the input; with ``counted`` inside that window's padding."""
    total = reduce(lambda first, second: b.mb.add(x=first, y=second), _taps(b, place, b.like(0)))
    sizes = [int(dim or 0) for dim in b.dims(0)[2:]]
    inside = [np.ones(size) for size in sizes]
    if counted is not None:
        inside = [
            np.ones(size + low + high) for size, low, high in zip(sizes, counted.before, counted.after, strict=True)
        ]
    lows = [low if counted is None else 0 for low in place.before]
    highs = [
        high if counted is None else high - own
        for high, own in zip(place.after, (0,) * len(sizes) if counted is None else counted.after, strict=True)
    ]
    axes = [np.pad(ones, (low, high)) for ones, low, high in zip(inside, lows, highs, strict=True)]
    held = reduce(np.multiply.outer, axes)
    counts = sum(held[place_of] for place_of in _slices(place, held.shape))
    return b.mb.real_div(x=total, y=b.array(np.asarray(counts, b.dtype(0))[None, None]))


def _slices(place: Window, padded: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """One per element of the window: the elements that it is over all windows."""
    counts = [(size - r) // s + 1 for size, r, s in zip(padded, place.reach, place.strides, strict=True)]
    for offsets in product(*(range(k) for k in place.kernel)):
        starts = [offset * d for offset, d in zip(offsets, place.dilations, strict=True)]
        yield tuple(
            slice(start, start + (count - 1) * s + 1, s)
            for start, count, s in zip(starts, counts, place.strides, strict=True)
        )


def _padded_sizes(b: Building, place: Window) -> tuple[int, ...]:
    return tuple(
        int(dim or 0) + low + high for dim, low, high in zip(b.dims(0)[2:], place.before, place.after, strict=True)
    )


def _taps(b: Building, place: Window, filler: Any) -> Iterator[Any]:
    x = b.mb.pad(x=b.x(), pad=[0, 0, 0, 0, *place.pads()], constant_val=filler) if any(place.pads()) else b.x()
    batch, channels = (int(dim or 0) for dim in b.dims(0)[:2])
    for places in _slices(place, _padded_sizes(b, place)):
        yield b.mb.slice_by_index(
            x=x,
            begin=[0, 0, *(part.start for part in places)],
            end=[batch, channels, *(part.stop for part in places)],
            stride=[1, 1, *(part.step for part in places)],
        )


def _indices(b: Building, place: Window) -> Iterator[np.ndarray]:
    """Where each element of the input stands in the flat input, cut as the taps are; ``storage_order`` 1 counts columns first."""
    shape = tuple(int(dim or 0) for dim in b.dims(0))
    sizes = shape[2:]
    own = np.arange(int(np.prod(sizes))).reshape(sizes[::-1]).T if b.integer("storage_order") else None
    flat = np.arange(int(np.prod(sizes))).reshape(sizes) if own is None else own
    images = np.arange(shape[0] * shape[1]).reshape(shape[0], shape[1], *(1,) * len(sizes)) * int(np.prod(sizes))
    padded = np.pad(flat, list(zip(place.before, place.after, strict=True)))
    for places in _slices(place, padded.shape):
        yield (images + padded[places][None, None]).astype(np.int32)
