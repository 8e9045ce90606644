"""The range whose rounding and saturation together make the least squared error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgewise.quantize.grid import Grid
from edgewise.quantize.observers.histogram import Histogram
from edgewise.quantize.observers.search import cheapest_range


class MeanSquaredError:
    """Least squared difference between the values and what they become on the grid."""

    def __init__(self) -> None:
        self._histogram = Histogram()

    def update(self, values: NDArray[np.float32]) -> None:
        """See one more piece."""
        self._histogram.update(values)

    def range(self, grid: Grid) -> tuple[float, float]:
        """The cheapest range within what was seen; holds zero."""
        centres, counts = self._histogram.occupied()

        def cost(lo: float, hi: float) -> float:
            return float(counts @ (grid.round_trip(centres, grid.fit(lo, hi)) - centres) ** 2)

        return cheapest_range(self._histogram.lowest, self._histogram.highest, grid, cost)
