"""The integer grids that activations and weights are rounded to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

# Below this a range is nothing: its scale would not be a normal float32.
_SMALLEST_RANGE = float(np.finfo(np.float32).tiny) * 256


@dataclass(frozen=True)
class Scale:
    """``real = scale × (integer − zero_point)`` for a whole tensor."""

    scale: np.float32
    zero_point: int


@dataclass(frozen=True)
class Grid:
    """8-bit integers of a tensor, asymmetric or symmetric about zero. Zero itself is always on the grid.

    Attributes:
        dtype: ``uint8`` or ``int8``.
        symmetric: the zero point is fixed: 0 for int8, 128 for uint8.
    """

    dtype: str
    symmetric: bool

    @cached_property
    def low(self) -> int:
        """The least integer."""
        return int(np.iinfo(self.dtype).min)

    @cached_property
    def high(self) -> int:
        """The greatest integer."""
        return int(np.iinfo(self.dtype).max)

    def fit(self, lo: float, hi: float) -> Scale:
        """The scale that covers [lo, hi], which is widened to hold zero.

        A range of nothing (a tensor that was always zero) gets scale 1: any other is as right, and this one is safe.
        """
        lo, hi = min(lo, 0.0), max(hi, 0.0)
        if max(-lo, hi) < _SMALLEST_RANGE:
            return Scale(np.float32(1.0), self._middle if self.symmetric else self.low)
        if self.symmetric:
            return Scale(np.float32(max(-lo, hi) / (self.high - self._middle)), self._middle)
        scale = np.float32((hi - lo) / (self.high - self.low))
        zero_point = round(self.low - lo / float(scale))
        return Scale(scale, min(max(zero_point, self.low), self.high))

    def round_trip(self, values: NDArray[np.float64], scale: Scale) -> NDArray[np.float64]:
        """What the values become: quantized (half to even, saturating, as ONNX's QuantizeLinear) and back."""
        step = float(scale.scale)
        integers = np.clip(np.rint(values / step) + scale.zero_point, self.low, self.high)
        return np.asarray((integers - scale.zero_point) * step)

    @property
    def _middle(self) -> int:
        return (self.low + self.high + 1) // 2


def weight_scales(weights: NDArray[np.float32], axis: int | None, bits: int = 8) -> NDArray[np.float32]:
    """Symmetric scales, one per slice along ``axis`` (None: one for the tensor): the largest magnitude is the top integer.

    A slice of zeros gets the median of the other scales, or 1 when there is none: its integers are zeros under any scale,
    but the bias' scale is made from it and must be of the usual size.

    Returns:
        float32, shape [weights.shape[axis]] or [].
    """
    others = None if axis is None else tuple(i for i in range(weights.ndim) if i != axis % weights.ndim)
    largest = np.max(np.abs(weights), axis=others).astype(np.float64)
    scales = largest / (2 ** (bits - 1) - 1)
    empty = largest < _SMALLEST_RANGE
    if np.any(empty):
        scales = np.where(empty, np.median(scales[~empty]) if np.any(~empty) else 1.0, scales)
    return np.asarray(scales, dtype=np.float32)
