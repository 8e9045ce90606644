"""The range that keeps most of the distribution's shape (least Kullback-Leibler divergence).

After S. Migacz, "8-bit Inference with TensorRT" (GTC 2017), with both ends free on an asymmetric grid.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgewise.quantize.grid import Grid
from edgewise.quantize.observers.histogram import Histogram
from edgewise.quantize.observers.search import cheapest_range

# Narrower ranges have fewer bins than levels: nothing is lost in them, so the divergence says nothing.
_LEAST = 1 / 16
_TINY = 1e-12  # in place of an empty bin's share, where the divergence would be infinite


class Entropy:
    """Least divergence between the histogram, its tails folded into the range's ends, and its quantized form."""

    def __init__(self) -> None:
        self._histogram = Histogram()

    def update(self, values: NDArray[np.float32]) -> None:
        """See one more piece."""
        self._histogram.update(values)

    def range(self, grid: Grid) -> tuple[float, float]:
        """The range of least divergence within what was seen; holds zero."""
        centres, counts = self._histogram.occupied()
        # Exact zeros (after a ReLU, half of all) are on every grid: they say nothing about where to cut.
        nonzero = np.abs(centres) >= (self._histogram.edges[1] - self._histogram.edges[0])
        centres, counts = centres[nonzero], counts[nonzero]
        if not centres.size:
            return self._histogram.lowest, self._histogram.highest

        def cost(lo: float, hi: float) -> float:
            return _divergence(centres, counts, grid, lo, hi)

        return cheapest_range(self._histogram.lowest, self._histogram.highest, grid, cost, _LEAST)


def _divergence(centres: NDArray[np.float64], counts: NDArray[np.float64], grid: Grid, lo: float, hi: float) -> float:
    inside = (centres >= lo) & (centres <= hi)
    if not np.any(inside):
        return np.inf
    scale = grid.fit(lo, hi)
    kept = counts[inside]
    levels = np.rint(centres[inside] / float(scale.scale)).astype(np.int64)
    levels -= levels.min()
    # Each level's mass, spread evenly over its occupied bins: what is left of the shape after rounding.
    rounded = (np.bincount(levels, weights=kept) / np.maximum(np.bincount(levels), 1))[levels]
    folded = kept.copy()
    folded[0] += counts[centres < lo].sum()
    folded[-1] += counts[centres > hi].sum()
    p, q = folded / folded.sum(), np.maximum(rounded / rounded.sum(), _TINY)
    return float(np.sum(p * np.log(p / q)))
