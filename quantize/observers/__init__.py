"""Observers: each sees a tensor piece by piece, in constant memory, and says which range to quantize. One file each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.grid import Grid
from edgewise.quantize.observers.average import MovingAverage
from edgewise.quantize.observers.entropy import Entropy
from edgewise.quantize.observers.minmax import MinMax
from edgewise.quantize.observers.mse import MeanSquaredError
from edgewise.quantize.observers.percentile import Percentile


class Observer(Protocol):
    """What calibration needs of a method."""

    def update(self, values: NDArray[np.float32]) -> None:
        """See one more piece: finite float32, any shape."""

    def range(self, grid: Grid) -> tuple[float, float]:
        """The range to cover, lowest and highest; holds zero."""


OBSERVERS: dict[str, Callable[[], Observer]] = {
    "minmax": MinMax,
    "average": MovingAverage,
    "percentile": Percentile,
    "entropy": Entropy,
    "mse": MeanSquaredError,
}


def find_observer(method: str) -> Callable[[], Observer]:
    """The observer of a method's name.

    Raises:
        QuantizeError: there is none of that name.
    """
    if method not in OBSERVERS:
        raise QuantizeError(
            "unknown calibration method",
            where=f"method {method!r}",
            found=repr(method),
            expected=f"one of {', '.join(OBSERVERS)}",
            fix="Choose one of these",
        )
    return OBSERVERS[method]
