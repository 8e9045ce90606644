"""A histogram in constant memory that widens its range as larger values come, as in TensorRT's and PyTorch's calibrators."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgewise.quantize.observers.minmax import MinMax

_HALF = 4096  # bins on either side of zero
_PIECE = 1 << 18
_FINEST = -100  # exponent of the first bin width; smaller values fall into the bins beside zero


class Histogram:
    """Counts over bins ``[i·w, (i+1)·w)`` for −4096 ≤ i < 4096.

    The width w is a power of two and bins are anchored at zero, so a value twice too large doubles w and merges bins in
    exact pairs: the counts are those that w would have given from the start, in whatever order the pieces came. At the
    end the larger half of the range spans 2048 to 4096 bins, eight or more for each step of an 8-bit grid.
    """

    def __init__(self) -> None:
        self._extent = MinMax()
        self._exponent = _FINEST
        self._counts = np.zeros(2 * _HALF, dtype=np.int64)

    def update(self, values: NDArray[np.float32]) -> None:
        """See one more piece; finite values, any shape."""
        self._extent.update(values)
        largest = max(-self._extent.lowest, self._extent.highest)
        self._widen(largest)
        width = math.ldexp(1.0, self._exponent)
        flat = values.ravel()
        for start in range(0, flat.size, _PIECE):  # the bins' numbers take more room than the values
            bins = np.floor(flat[start : start + _PIECE] / np.float32(width)).astype(np.int64) + _HALF
            self._counts += np.bincount(bins, minlength=2 * _HALF)

    @property
    def lowest(self) -> float:
        """The least value seen, or zero."""
        return self._extent.lowest

    @property
    def highest(self) -> float:
        """The greatest value seen, or zero."""
        return self._extent.highest

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many values fell into each bin, shape [8192]."""
        return self._counts.copy()

    @property
    def edges(self) -> NDArray[np.float64]:
        """The bins' borders, shape [8193]."""
        return np.arange(-_HALF, _HALF + 1, dtype=np.float64) * np.float64(math.ldexp(1.0, self._exponent))

    def occupied(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Centres and counts of the bins that are not empty, in ascending order."""
        edges = self.edges
        filled = np.flatnonzero(self._counts)
        centres = np.clip((edges[filled] + edges[filled + 1]) / 2, self.lowest, self.highest)
        return centres, self._counts[filled].astype(np.float64)

    def _widen(self, largest: float) -> None:
        """Double the width until ``largest`` is strictly inside."""
        needed = math.frexp(largest)[1] - int(math.log2(_HALF)) if largest else self._exponent
        shift = needed - self._exponent
        if shift <= 0:
            return
        merged = np.zeros_like(self._counts)
        filled = np.flatnonzero(self._counts)
        np.add.at(merged, ((filled - _HALF) >> shift) + _HALF, self._counts[filled])
        self._counts, self._exponent = merged, needed
