"""Finding the range that costs least."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgewise.quantize.grid import Grid

_STEPS = 100
_ROUNDS = 2  # one end, the other end, and once more with both moved


def cheapest_range(
    lowest: float, highest: float, grid: Grid, cost: Callable[[float, float], float], least: float = 1 / _STEPS
) -> tuple[float, float]:
    """Shrink the range that was seen, end by end (both at once where the grid is centred on zero), to where ``cost(lo, hi)`` is least.

    Neither end goes below the share ``least`` of what was seen. Of equal costs the widest range wins, so nothing saturates
    without gain.
    """
    shares = np.linspace(1.0, least, _STEPS)
    if grid.centred(lowest):
        largest = max(-lowest, highest)
        best = float(shares[int(np.argmin([cost(-largest * share, largest * share) for share in shares]))])
        return max(lowest, -largest * best), min(highest, largest * best)
    lo, hi = lowest, highest
    for _ in range(_ROUNDS):
        if highest > 0:
            hi = highest * float(shares[int(np.argmin([cost(lo, highest * share) for share in shares]))])
        if lowest < 0:
            lo = lowest * float(shares[int(np.argmin([cost(lowest * share, hi) for share in shares]))])
    return lo, hi
