"""How far a median can be trusted: intervals by the bootstrap."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.95
_RESAMPLES = 1000
_AT_ONCE = 50  # resamples: of many thousand runs they would fill the memory
_SEED = 0
_FEWEST = 5
_LEAST_BLOCKS = 8


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The interval that holds the median of further runs like these with 95 % confidence; None for fewer than five.

    Percentile bootstrap (Efron, 1979) over circular blocks of neighbours (Politis and Romano, 1992), as long as what slows them down lasts:
    a slow run seldom comes alone, and resampling single runs would make the interval too short. 1000 resamples, the same every time.
    """
    array = np.asarray(values, np.float64)
    count = len(array)
    if count < _FEWEST:
        return None
    block = _block_length(array)
    blocks = -(-count // block)
    generator = np.random.default_rng(_SEED)
    medians: list[np.ndarray] = []
    for _ in range(_RESAMPLES // _AT_ONCE):
        starts = generator.integers(0, count, (_AT_ONCE, blocks, 1))
        chosen = (starts + np.arange(block)) % count
        medians.append(np.median(array[chosen.reshape(_AT_ONCE, -1)[:, :count]], axis=1))
    low, high = np.percentile(medians, (50 * (1 - CONFIDENCE), 100 - 50 * (1 - CONFIDENCE)))
    return float(low), float(high)


def _block_length(values: np.ndarray) -> int:
    """Politis and White's (2004, with the constants of Patton, Politis and White, 2009) for circular blocks, n^(1/3) at least.

    It is found on whether a run lies above the median, which is what moves a median; no longer than an eighth of the runs.
    """
    count = len(values)
    least: int = max(1, round(count ** (1 / 3)))
    most = max(least, count // _LEAST_BLOCKS)
    above = (values > np.median(values)).astype(np.float64)
    spectrum = np.fft.rfft(above - above.mean(), 2 * count)
    covariance = np.fft.irfft(np.abs(spectrum) ** 2)[:count] / count
    if covariance[0] <= 0:
        return least
    # Twice the lag after which nothing is left, weighted flat at first and falling after (their equation 5).
    reach = min(2 * _last_lag(covariance / covariance[0]), count - 1)
    lags = np.arange(-reach, reach + 1)
    weighted = np.clip(2 - 2 * np.abs(lags) / reach, 0, 1) * covariance[np.abs(lags)]
    level = float(weighted.sum())
    if level <= 0:
        return least
    slope = float((np.abs(lags) * weighted).sum())
    # (2 G² / D)^(1/3) n^(1/3), where D = 4/3 g(0)² for circular blocks.
    best = math.cbrt(1.5 * (slope / level) ** 2 * count)
    return min(max(least, round(best)), most)


def _last_lag(correlation: np.ndarray) -> int:
    """The lag, at least 1, after which a row of correlations are all no more than chance gives."""
    count = len(correlation)
    row = min(max(5, math.ceil(math.log10(count))), count - 1)
    small = np.abs(correlation[1:]) < 2 * math.sqrt(math.log10(count) / count)
    quiet = np.convolve(small, np.ones(row), "valid") >= row
    first = int(np.argmax(quiet)) if quiet.any() else len(quiet)
    return max(first, 1)
