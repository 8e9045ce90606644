"""The whole range that was seen: nothing saturates, and one outlier widens the steps of all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgewise.quantize.grid import Grid


class MinMax:
    """Least and greatest value."""

    def __init__(self) -> None:
        self.lowest, self.highest = 0.0, 0.0

    def update(self, values: NDArray[np.float32]) -> None:
        """See one more piece."""
        if values.size:
            self.lowest = min(self.lowest, float(values.min()))
            self.highest = max(self.highest, float(values.max()))

    def range(self, grid: Grid) -> tuple[float, float]:
        """Lowest and highest, widened to hold zero."""
        return self.lowest, self.highest
