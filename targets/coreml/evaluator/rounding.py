"""Results in the dtype that a program declares. NumPy's own casts to and from float16 take longer than most operations."""

from __future__ import annotations

from typing import Any

import numpy as np

_EXPONENT = np.uint32(0x7F800000)
_LEAST_NORMAL = np.uint32((127 - 14) << 23)  # exponents, as float32 holds them
_LARGEST = np.uint32((127 + 15) << 23)
_COARSER = np.uint32((13 << 23) + (1 << 22))  # 1.5 times 2^13: float32 has 13 bits of fraction more than float16


def held(array: Any, dtype: np.dtype[Any]) -> Any:
    """An array in ``dtype``; float16 as float32 that hold exactly the numbers that float16 would."""
    if dtype != np.float16:
        return array.astype(dtype)
    return array.astype(np.float32) if array.dtype == np.float16 else rounded_to_half(array)


def rounded_to_half(x: Any) -> Any:
    """Each float32 as the nearest float16 (ties to even, infinite beyond 65520), still in float32.

    To each number 1.5 times its power of two and 2^13 is added and taken away again: the sum has as few bits left for the number as
    float16 has. Below 2^-14 float16's numbers are as far apart as there.
    """
    x = np.asarray(x, np.float32)
    if not x.ndim:
        return rounded_to_half(x[np.newaxis])[0]
    power = x.view(np.uint32) & _EXPONENT
    most = np.maximum.reduce(power, axis=None, initial=0)
    np.maximum(power, _LEAST_NORMAL, out=power)
    np.minimum(power, _LARGEST, out=power)
    power += _COARSER
    large = power.view(np.float32)
    near = x + large
    near -= large
    np.copysign(near, x, out=near)
    if most >= _LARGEST:  # from 32768 on; infinities and NaN as well
        near[np.abs(near) > np.float32(65504)] = np.inf
        np.copysign(near, x, out=near)
    return near
