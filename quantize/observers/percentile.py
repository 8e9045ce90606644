"""All but the outermost values: the rarest ones saturate so that the steps of the others are finer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgewise.quantize.grid import Grid
from edgewise.quantize.observers.histogram import Histogram

_KEPT = 0.9999


class Percentile:
    """The range between two quantiles, 0.01 % and 99.99 %."""

    def __init__(self, kept: float = _KEPT) -> None:
        self._kept = kept
        self._histogram = Histogram()

    def update(self, values: NDArray[np.float32]) -> None:
        """See one more piece."""
        self._histogram.update(values)

    def range(self, grid: Grid) -> tuple[float, float]:
        """The two quantiles, never beyond what was seen, widened to hold zero."""
        lo, hi = self._quantile(1 - self._kept), self._quantile(self._kept)
        return min(max(lo, self._histogram.lowest), 0.0), max(min(hi, self._histogram.highest), 0.0)

    def _quantile(self, share: float) -> float:
        cumulated = np.concatenate([[0], np.cumsum(self._histogram.counts)]).astype(np.float64)
        if cumulated[-1] == 0:
            return 0.0
        # Steps of zero width would make the interpolation ambiguous: keep the borders of bins that hold something.
        rises = np.flatnonzero(np.diff(cumulated))
        borders = np.stack([rises, rises + 1], axis=1).ravel()
        return float(np.interp(share * cumulated[-1], cumulated[borders], self._histogram.edges[borders]))
