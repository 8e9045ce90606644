"""The integer grids that activations and weights are rounded to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgewise.quantize.spec import LIMITS

# Below this a range is nothing: its scale would not be a normal float32.
_SMALLEST_RANGE = float(np.finfo(np.float32).tiny) * 256
_CUTS_UP_TO = 6
_SHARES = np.linspace(1.0, 0.4, 31)


@dataclass(frozen=True)
class Scale:
    """``real = scale × (integer − zero_point)`` for a whole tensor."""

    scale: np.float32
    zero_point: int


@dataclass(frozen=True)
class Grid:
    """The integers of a tensor, asymmetric or symmetric about zero. Zero itself is always on the grid.

    Attributes:
        dtype: a key of ``LIMITS``.
        symmetric: the zero point is fixed: 0 for int8, 128 for uint8.
        power_of_two: the scale is a power of two, so that rescaling is a shift.
        one_sided: a symmetric uint8 grid begins at zero (zero point 0) for tensors that are never negative.
    """

    dtype: str
    symmetric: bool
    power_of_two: bool = False
    one_sided: bool = False

    @cached_property
    def low(self) -> int:
        """The least integer."""
        return LIMITS[self.dtype][0]

    @cached_property
    def high(self) -> int:
        """The greatest integer."""
        return LIMITS[self.dtype][1]

    def fit(self, lo: float, hi: float) -> Scale:
        """The scale that covers [lo, hi], which is widened to hold zero.

        A range of nothing (a tensor that was always zero) gets scale 1: any other is as right, and this one is safe.
        """
        lo, hi = min(lo, 0.0), max(hi, 0.0)
        if max(-lo, hi) < _SMALLEST_RANGE:
            return Scale(np.float32(1.0), self._middle if self.centred(lo) else self.low)
        if self.centred(lo):
            return Scale(self._step(max(-lo, hi) / (self.high - self._middle)), self._middle)
        scale = self._step((hi - lo) / (self.high - self.low))
        zero_point = round(self.low - lo / float(scale))
        return Scale(scale, min(max(zero_point, self.low), self.high))

    def centred(self, lo: float) -> bool:
        """Whether the range of a tensor whose least value is ``lo`` lies evenly about zero."""
        return self.symmetric and not (self.one_sided and lo >= 0)

    def round_trip(self, values: NDArray[np.float64], scale: Scale) -> NDArray[np.float64]:
        """What the values become: quantized (half to even, saturating, as ONNX's QuantizeLinear) and back."""
        step = float(scale.scale)
        integers = np.clip(np.rint(values / step) + scale.zero_point, self.low, self.high)
        return np.asarray((integers - scale.zero_point) * step)

    def _step(self, scale: float) -> np.float32:
        return np.float32(2.0 ** np.ceil(np.log2(scale)) if self.power_of_two else scale)

    @property
    def _middle(self) -> int:
        return (self.low + self.high + 1) // 2


def weight_scales(weights: NDArray[np.float32], axis: int | None, bits: int = 8) -> NDArray[np.float32]:
    """Symmetric scales, one per slice along ``axis`` (None: one for the tensor).

    From 7 bits up the largest magnitude is the top integer. With fewer, steps are so wide that finer ones may be worth
    cutting the largest weights for: of some shares of the magnitude the one with the least squared error is taken.

    A slice of zeros gets the median of the other scales, or 1 when there is none: its integers are zeros under any scale,
    but the bias' scale is made from it and must be of the usual size.

    Returns:
        float32, shape [weights.shape[axis]] or [].
    """
    rows = weights.reshape(1, -1) if axis is None else np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)
    largest = np.max(np.abs(rows), axis=1).astype(np.float64)
    scales = largest / (2 ** (bits - 1) - 1)
    if bits <= _CUTS_UP_TO:
        scales *= _best_shares(rows, scales, 2 ** (bits - 1) - 1)
    empty = largest < _SMALLEST_RANGE
    if np.any(empty):
        scales = np.where(empty, np.median(scales[~empty]) if np.any(~empty) else 1.0, scales)
    return np.asarray(scales[0] if axis is None else scales, dtype=np.float32)


def _best_shares(rows: NDArray[np.float32], scales: NDArray[np.float64], top: int) -> NDArray[np.float64]:
    """Per row the share of its scale under which rounding costs least; the larger one of equals."""
    best, least = np.ones(len(rows)), np.full(len(rows), np.inf)
    safe = np.where(scales > 0, scales, 1.0)
    for share in _SHARES:
        steps = rows / (safe * share)[:, None]
        cost = np.square((np.clip(np.rint(steps), -top, top) - steps) * share).sum(axis=1)
        better = cost < least
        best, least = np.where(better, share, best), np.where(better, cost, least)
    return best
