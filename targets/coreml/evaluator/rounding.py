"""Results in the dtype that a program declares. NumPy's own casts to and from float16 take longer than most operations."""

from __future__ import annotations

from typing import Any

import numpy as np

_LEAST_NORMAL = np.float32(2.0**-14)
_LARGEST = np.float32(65504)
_SHIFT = np.float32(0.75)  # numbers from 1/2 to 1 are 2^-24 apart in float32, as the smallest of float16 are
_DROPPED = 13  # bits of float32's fraction that float16 has not


def held(array: Any, dtype: np.dtype[Any]) -> Any:
    """An array in ``dtype``; float16 as float32 that hold exactly the numbers that float16 would."""
    if dtype != np.float16:
        return array.astype(dtype)
    return array.astype(np.float32) if array.dtype == np.float16 else rounded_to_half(array.astype(np.float32))


def rounded_to_half(x: Any) -> Any:
    """Each float32 as the nearest float16 (ties to even, infinite beyond 65520), still in float32."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    odd = (bits >> _DROPPED) & 1
    near = (
        (bits + (odd + np.uint32((1 << (_DROPPED - 1)) - 1))) & np.uint32(0xFFFFFFFF << _DROPPED & 0xFFFFFFFF)
    ).view(np.float32)
    size = np.abs(x)
    if not size.size:
        return near
    least, most = size.min(), size.max()
    if least < _LEAST_NORMAL:
        near = np.where(size < _LEAST_NORMAL, np.copysign(size + _SHIFT - _SHIFT, x), near)
    if not most <= _LARGEST:  # NaN as well, whose bits may have run over
        near = np.where(np.abs(near) > _LARGEST, np.copysign(np.float32(np.inf), x), near)
        near = np.where(np.isnan(x), np.float32(np.nan), near)
    return near
