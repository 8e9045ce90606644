"""Two bundles measured in turns, so that whatever disturbs the machine meets both."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

from edgewise.runtime.model import Model, load
from edgewise.runtime.profile.interval import median_interval
from edgewise.runtime.profile.local import check_numbers, send_off
from edgewise.runtime.profile.result import SCHEMA_VERSION, own_version, summarize
from edgewise.runtime.profile.samples import samples_of
from edgewise.runtime.progress import Progress, silent

_TURN_S = 0.05
_LEAST_RUNS = 3
_ROUNDS = 40


def profile_pair(
    a: Path | str, b: Path | str, *, threads: int = 0, rounds: int | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """Measure two bundles against each other on this machine, in one process of its own.

    They take turns of 50 ms or three runs, in the order a b b a; the first run of a turn, which finds the other's data in the caches, does
    not count. A round's value is the median run of a turn, timed around the engine's Python, so that engines of two kinds are held
    against each other alike.

    Args:
        a: the bundle that the other is held against.
        b: the other.
        threads: of both; 0 means all cores.
        rounds: how many turns each gets; None: 40.
        progress: told how far the work is.

    Returns:
        ``a`` and ``b`` with ``path`` and ``latency_ms`` (of the rounds, as in a profile), ``ratio`` with ``median, low, high``: the time of b
        over that of a, with its 95 % interval, and ``differs``: whether that interval leaves 1 out.

    Raises:
        RunError: one of them cannot be loaded or run, or a number is out of range.
    """
    check_numbers(threads, rounds, None, 1.0)
    order = {"pair": [str(a), str(b)], "path": f"{a}, {b}", "threads": threads, "rounds": rounds or _ROUNDS}
    measured = send_off(order, progress)
    return compared(a, b, measured["rounds_ms"], threads, measured["machine"])


def compared(
    a: Path | str, b: Path | str, rounds_ms: Sequence[Sequence[float]], threads: int, machine: dict[str, Any]
) -> dict[str, Any]:
    """What :func:`profile_pair` returns, out of the rounds of each."""
    of_a, of_b = rounds_ms
    ratios = [late / early for early, late in zip(of_a, of_b, strict=True)]
    interval = median_interval(ratios)
    low, high = interval or (None, None)
    return {
        "schema_version": SCHEMA_VERSION,
        "device": machine,
        "threads": threads,
        "versions": {"edgewise": own_version()},
        "a": {"path": str(a), "latency_ms": summarize(of_a)},
        "b": {"path": str(b), "latency_ms": summarize(of_b)},
        "ratio": {"median": median(ratios), "low": low, "high": high},
        "differs": interval is not None and not interval[0] <= 1 <= interval[1],
    }


def take_turns(order: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The worker's part: ``rounds_ms`` has for each bundle the median run of each of its turns, in milliseconds.

    Raises:
        EdgewiseError: a bundle cannot be loaded or run.
    """
    models = [load(path, threads=order["threads"]) for path in order["pair"]]
    turns = [_Turn(model) for model in models]
    rounds: list[list[float]] = [[], []]
    for number in range(order["rounds"]):
        tell({"progress": ["measure in turns", number, order["rounds"]]})
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            rounds[which].append(turns[which].take())
    return {"rounds_ms": rounds}


class _Turn:
    def __init__(self, model: Model) -> None:
        self._runs = cycle([model.prepare(sample) for sample in samples_of(model, None)])
        self.take()  # warm-up

    def take(self) -> float:
        next(self._runs)()
        took: list[float] = []
        end = time.perf_counter() + _TURN_S
        while len(took) < _LEAST_RUNS or time.perf_counter() < end:
            run = next(self._runs)
            start = time.perf_counter_ns()
            run()
            took.append((time.perf_counter_ns() - start) / 1e6)
        return median(took)
