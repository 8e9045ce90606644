"""Integers: activations, and weights that are stored as integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def _spread(parameter: Any, data: Any, axis: Any) -> Any:
    parameter = np.asarray(parameter)
    if parameter.ndim == 0:
        return parameter
    shape = [1] * data.ndim
    shape[int(axis)] = -1
    return parameter.reshape(shape)


def _quantize(input: Any, scale: Any, output_dtype: str, zero_point: Any = 0, axis: Any = 0, **_: Any) -> Any:
    limits = np.iinfo(output_dtype)
    zero = _spread(zero_point, input, axis).astype(np.float32)
    return np.clip(np.round(input / _spread(scale, input, axis)) + zero, limits.min, limits.max)


def _dequantize(input: Any, scale: Any, zero_point: Any = 0, axis: Any = 0, **_: Any) -> Any:
    zero = _spread(zero_point, input, axis).astype(np.float32)
    return _spread(scale, input, axis) * (input.astype(np.float32) - zero)


def _affine(quantized_data: Any, scale: Any, zero_point: Any, axis: Any, **_: Any) -> Any:
    return _dequantize(quantized_data, scale, zero_point, axis)


def _blockwise(data: Any, scale: Any, offset: Any = None, **_: Any) -> Any:
    """Each scale counts for a block of ``data``: its size along an axis is the quotient of the dims."""
    y = data.astype(np.float32)
    for axis, (dim, count) in enumerate(zip(data.shape, scale.shape, strict=True)):
        scale = np.repeat(scale, dim // count, axis)
        offset = None if offset is None else np.repeat(offset, dim // count, axis)
    return scale * (y if offset is None else y - offset.astype(np.float32))


OPERATIONS: dict[str, Callable[..., Any]] = {
    "quantize": _quantize,
    "dequantize": _dequantize,
    "constexpr_affine_dequantize": _affine,
    "constexpr_blockwise_shift_scale": _blockwise,
}
