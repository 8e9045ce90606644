"""The mean of the samples' ranges, newer ones weighing more: single outlier samples widen the range only a little.

After B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (CVPR
2018), 3.1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgewise.quantize.grid import Grid

_NEW = 0.05  # weight of a new sample, once there are 20; before that all weigh the same


class MovingAverage:
    """Exponential moving averages of the least and the greatest value of each piece."""

    def __init__(self) -> None:
        self._lowest, self._highest, self._count = 0.0, 0.0, 0

    def update(self, values: NDArray[np.float32]) -> None:
        """See one more piece."""
        if values.size:
            self._count += 1
            weight = max(_NEW, 1 / self._count)
            self._lowest += weight * (min(float(values.min()), 0.0) - self._lowest)
            self._highest += weight * (max(float(values.max()), 0.0) - self._highest)

    def range(self, grid: Grid) -> tuple[float, float]:
        """The two averages; hold zero."""
        return self._lowest, self._highest
