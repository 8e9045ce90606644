"""How much to scale the channels of a tensor so that rounding it, and the weights that read it, costs least."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgewise.quantize.grid import Grid

Vector = NDArray[np.float64]

_EXPONENTS = (0.25, 0.5, 0.75, 1.0)
_CEILINGS = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9)  # of the widest channel's range
_LEAST_RANGE = 1e-3  # of the widest channel's: calibration may have seen too little of narrower ones


class ChannelStatistics:
    """Per channel, what was seen of a tensor: extremes, mean square, share of values that are not zero.

    Args:
        axis: along which the channels run.
    """

    def __init__(self, axis: int) -> None:
        self._axis = axis
        self._count = 0
        self.lowest: Vector = np.zeros(())
        self.highest: Vector = np.zeros(())
        self._squares: Vector = np.zeros(())
        self._filled: Vector = np.zeros(())

    @property
    def kind(self) -> str:
        """What two of which end up the same for the same values."""
        return f"channels along {self._axis}"

    def update(self, values: NDArray[np.float32]) -> None:
        """See one more piece; finite."""
        rows = np.moveaxis(values, self._axis, 0).reshape(values.shape[self._axis], -1)
        if not rows.size:
            return
        self._count += rows.shape[1]
        self.lowest = np.minimum(self.lowest, rows.min(axis=1))
        self.highest = np.maximum(self.highest, rows.max(axis=1))
        self._squares = self._squares + np.einsum("ci,ci->c", rows, rows, dtype=np.float64)
        self._filled = self._filled + np.count_nonzero(rows, axis=1)

    def split(self, places: NDArray[np.int64], parts: NDArray[np.int64]) -> ChannelStatistics:
        """As if the channels at ``places`` [copies] had been seen, each divided by its ``parts`` [channels]."""
        found = ChannelStatistics(self._axis)
        share = 1 / parts[places]
        found._count = self._count
        found.lowest, found.highest = self.lowest[places] * share, self.highest[places] * share
        found._squares, found._filled = self._squares[places] * np.square(share), self._filled[places]
        return found

    @property
    def mean_square(self) -> Vector:
        """Per channel."""
        return self._squares / max(self._count, 1)

    @property
    def filled(self) -> Vector:
        """Per channel the share of values other than zero: zero itself is never rounded."""
        return self._filled / max(self._count, 1)


@dataclass(frozen=True)
class Reader:
    """Weights that read the channels, as [output, kernel position, channel]; depthwise ones as [channel, position, 1]."""

    weights: NDArray[np.float32]
    depthwise: bool = False

    @property
    def gains(self) -> Vector:
        """How much of the noise on each channel reaches the outputs: the sum of its squared weights."""
        squares = np.square(self.weights, dtype=np.float64)
        return np.asarray(squares.sum(axis=(1, 2)) if self.depthwise else squares.sum(axis=(0, 1)))

    def weight_noise(self, factors: Vector, mean_square: Vector, top: int) -> float:
        """What rounding the scaled weights adds to the outputs, per output position."""
        largest = np.abs(self.weights).max(axis=1).astype(np.float64)
        positions = self.weights.shape[1]
        if self.depthwise:  # each channel has a scale of its own, which takes any factor
            return float(positions / 12 * np.sum(np.square(largest[:, 0] / top) * mean_square))
        steps = (largest * factors).max(axis=1) / top
        return float(positions / 12 * np.sum(np.square(steps)) * np.sum(mean_square / np.square(factors)))


def best_factors(
    seen: ChannelStatistics, readers: list[Reader], grid: Grid, weight_bits: int, *, few: bool = False
) -> tuple[Vector, float]:
    """Factors to divide the channels by (their readers' weights are multiplied by them), and the gain in dB.

    Wide channels are narrowed by a power of their range, so that the steps of the grid suit the others too; the weights
    that read them grow, and cost more in their turn. Both costs are estimated for a few powers and the least sum wins.
    After M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019), and G. Xiao
    et al., "SmoothQuant" (2022).

    Args:
        seen: of the tensor.
        readers: all the layers that read it.
        grid: that it is rounded to.
        weight_bits: of the readers.
        few: also try to narrow the widest channels alone.

    Returns:
        float64 [channels], all 1 where nothing gains, and the estimated fall of the noise at the readers' outputs.
    """
    ranges = np.maximum(-seen.lowest, seen.highest)
    if not np.any(ranges > 0):
        return np.ones_like(ranges), 0.0
    relative = np.clip(ranges / ranges.max(), _LEAST_RANGE, 1.0)
    candidates = [
        np.ones_like(ranges),
        *(relative**exponent for exponent in _EXPONENTS),
        *(np.maximum(relative / ceiling, 1.0) for ceiling in (_CEILINGS if few else ())),
    ]
    noises = [noise_of(factors, seen, readers, grid, weight_bits) for factors in candidates]
    best = int(np.argmin(noises))
    gain = 10 * np.log10(noises[0] / noises[best]) if noises[best] > 0 else 0.0
    return candidates[best], float(gain)


def noise_of(factors: Vector, seen: ChannelStatistics, readers: list[Reader], grid: Grid, weight_bits: int) -> float:
    """What rounding a tensor divided by factors, and the weights multiplied by them, adds to the readers' outputs.

    Per output position, as squares.
    """
    top = 2 ** (weight_bits - 1) - 1
    scale = grid.fit(float((seen.lowest / factors).min()), float((seen.highest / factors).max()))
    per_channel = np.square(factors * float(scale.scale)) / 12 * seen.filled
    rounding = sum(float(per_channel @ reader.gains) for reader in readers)
    return rounding + sum(reader.weight_noise(factors, seen.mean_square, top) for reader in readers)
