"""As many runs as it takes until a median is known as closely as was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from edgewise.errors import ToolchainError

_MOST_TRIES = 4
_MOST_RUNS, _MOST_S = 200_000, 60.0
_LEAST_GROWTH, _MOST_GROWTH = 2.0, 20.0
_MARGIN = 1.3  # intervals are estimates too

Measure = Callable[[int | None], dict[str, Any]]


def measure_within(measure: Measure, within: float | None, runs: int | None, duration_s: float) -> dict[str, Any]:
    """Measure, and again with more runs while the median's 95 % interval reaches further than ``within`` of it to either side.

    The interval shrinks with the root of the number of runs, which says how many the next try needs: at most 200,000, or a minute of them.
    What stays wider then has a warning of the kind ``interval``.

    Args:
        measure: a profile with so many runs (None: as many as its time holds).
        within: a share of the median, such as 0.01; None: measure once.
        runs: of the first try.
        duration_s: of a sustained measurement, whose runs the time decides: it may not be asked for at once.

    Raises:
        ToolchainError: a share that is none, or a sustained measurement.
    """
    if within is None:
        return measure(runs)
    if not 0 < within < 1 or duration_s > 0:
        wrong = f"--within {within:g}" + (f" and --duration {duration_s:g}" if duration_s > 0 else "")
        raise ToolchainError(
            "cannot measure until the median is known", where="profile", found=wrong, expected="a share between 0 and 1, without --duration",
            fix="Use --within 0.01 for one percent, alone",
        )  # fmt: skip
    result = measure(runs)
    for _ in range(_MOST_TRIES):
        latency = result["latency_ms"]
        reach, had = _reach(latency), len(latency["samples"])
        if reach <= within:
            return result
        growth = min(max((reach / within) ** 2 * _MARGIN, _LEAST_GROWTH), _MOST_GROWTH)
        wanted = int(min(math.ceil(had * growth), _MOST_RUNS, _MOST_S * 1e3 / latency["median"]))
        if wanted <= had:
            break
        result = measure(wanted)
    reach = _reach(result["latency_ms"])
    if reach > within:
        count = len(result["latency_ms"]["samples"])
        told = f"interval: the median is known to within {reach:.2%} after {count} runs, not {within:.2%}; something disturbs the machine, or it takes longer"
        result["warnings"] = [*result["warnings"], told]
    return result


def _reach(latency: dict[str, Any]) -> float:
    """How far the interval reaches from the median, as a share of it; infinite for too few runs to say."""
    if latency["median_interval"] is None or not latency["median"]:
        return math.inf
    low, high = latency["median_interval"]
    return float(max(high - latency["median"], latency["median"] - low) / latency["median"])
