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


def _repeated(parameter: Any, shape: Any) -> Any:
    """One entry per element: each counts for a block, whose size along an axis is the quotient of the dims."""
    for axis, dim in enumerate(shape):
        parameter = np.repeat(parameter, dim // parameter.shape[axis], axis)
    return parameter


def _blockwise(data: Any, scale: Any, offset: Any = None, **_: Any) -> Any:
    y = data.astype(np.float32)
    return _repeated(scale, data.shape) * (
        y if offset is None else y - _repeated(offset, data.shape).astype(np.float32)
    )


def _bits(packed: Any, count: int, width: int) -> Any:
    """The integers of ``width`` bits that were packed one after the other, least bit first."""
    planes = np.unpackbits(packed, bitorder="little")[: count * width].reshape(count, width)
    return (planes * (1 << np.arange(width))).sum(axis=1)


def _lut_to_dense(indices: Any, lut: Any, shape: Any = None, vector_axis: Any = 0, **_: Any) -> Any:
    """Packed indices and one table (iOS 16), or one table per block, [.., entries, vector] (iOS 18)."""
    if shape is not None:
        width = int(np.log2(len(lut)))
        return lut[_bits(indices, int(np.prod(shape)), width)].reshape([int(dim) for dim in shape])
    found = _looked_up(indices, lut)
    axis = int(vector_axis) % indices.ndim
    spread = np.moveaxis(found, -1, axis + 1)
    return spread.reshape(*indices.shape[:axis], -1, *indices.shape[axis + 1 :])


def _looked_up(indices: Any, lut: Any) -> Any:
    """[.., vector]: the entry of each index in the table of its block."""
    lead = lut.shape[:-2]
    block = _repeated(np.arange(int(np.prod(lead))).reshape(lead), indices.shape)
    return lut.reshape(-1, *lut.shape[-2:])[block, indices.astype(int)]


def _sparse_to_dense(nonzero_data: Any, mask: Any, shape: Any = None, **_: Any) -> Any:
    if shape is not None:
        dims = [int(dim) for dim in shape]
        mask = _bits(mask, int(np.prod(dims)), 1).reshape(dims)
    y = np.zeros(mask.shape, nonzero_data.dtype)
    y[mask != 0] = nonzero_data
    return y


def _sparse_blockwise(data_mask: Any, nonzero_data: Any, scale: Any, offset: Any = None, **_: Any) -> Any:
    dense = _blockwise(_sparse_to_dense(nonzero_data, data_mask), scale, offset)
    return [data_mask, dense[data_mask != 0]]


def _lut_to_sparse(indices_mask: Any, indices_nonzero_data: Any, lut: Any, vector_axis: Any = 0, **_: Any) -> Any:
    axis = int(vector_axis) % indices_mask.ndim
    mask = np.repeat(indices_mask, lut.shape[-1], axis)
    dense = _lut_to_dense(_sparse_to_dense(indices_nonzero_data, indices_mask), lut, vector_axis=axis)
    return [mask, dense[mask != 0]]


OPERATIONS: dict[str, Callable[..., Any]] = {
    "quantize": _quantize,
    "dequantize": _dequantize,
    "constexpr_affine_dequantize": _affine,
    "constexpr_blockwise_shift_scale": _blockwise,
    "constexpr_lut_to_dense": _lut_to_dense,
    "constexpr_sparse_to_dense": _sparse_to_dense,
    "constexpr_sparse_blockwise_shift_scale": _sparse_blockwise,
    "constexpr_lut_to_sparse": _lut_to_sparse,
}
