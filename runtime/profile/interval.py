"""How far a median can be trusted: intervals by the bootstrap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.95
_RESAMPLES = 1000
_AT_ONCE = 50  # resamples: of many thousand runs they would fill the memory
_SEED = 0
_FEWEST = 5


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The interval that holds the median of further runs like these with 95 % confidence; None for fewer than five.

    Percentile bootstrap (Efron, 1979) over circular blocks of n^(1/3) neighbours (Politis and Romano, 1992), because a slow run seldom
    comes alone: resampling single runs would make the interval too short. 1000 resamples, the same every time.
    """
    array = np.asarray(values, np.float64)
    count = len(array)
    if count < _FEWEST:
        return None
    block = max(1, round(count ** (1 / 3)))
    blocks = -(-count // block)
    generator = np.random.default_rng(_SEED)
    medians: list[np.ndarray] = []
    for _ in range(_RESAMPLES // _AT_ONCE):
        starts = generator.integers(0, count, (_AT_ONCE, blocks, 1))
        chosen = (starts + np.arange(block)) % count
        medians.append(np.median(array[chosen.reshape(_AT_ONCE, -1)[:, :count]], axis=1))
    low, high = np.percentile(medians, (50 * (1 - CONFIDENCE), 100 - 50 * (1 - CONFIDENCE)))
    return float(low), float(high)
