"""The measurement itself: a first run, a warm-up until it is stable, warm runs."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

Run = Callable[[], object]
Clock = Callable[[], int]

DEFAULT_MIN_TIME_S = 2.0
_WINDOW = 5
_STABLE_WITHIN = 0.05
_MOST_WARMUP_NS = 3_000_000_000
_LEAST_RUNS, _MOST_RUNS = 20, 10_000
_MOST_NS = 60_000_000_000
_MOST_GLANCES = 20


@dataclass
class Timings:
    """Durations in nanoseconds, in the order of measurement. ``stable``: the warm-up ended because nothing changed any more."""

    first_ns: int = 0
    warmup_ns: list[int] = field(default_factory=list)
    runs_ns: list[int] = field(default_factory=list)
    stable: bool = True


def measure(
    run: Run,
    *,
    runs: int | None = None,
    warmup: int | None = None,
    min_time_s: float = DEFAULT_MIN_TIME_S,
    clock: Clock = time.perf_counter_ns,
    glance: Callable[[], None] = lambda: None,
    tell: Callable[[str, int, int | None], None] = lambda task, done, total: None,
) -> Timings:
    """Time a function.

    Args:
        run: what is timed.
        runs: so many warm runs; None: at least 20, until ``min_time_s`` have passed (at most 10,000 runs or a minute).
        warmup: so many runs before them; None: until the median of five runs is within 5 % of the five before, or three
            seconds have passed.
        min_time_s: see ``runs``.
        clock: nanoseconds.
        glance: called some twenty times between runs, to look at the machine.
        tell: progress.
    """
    timings = Timings(first_ns=_time(run, clock))
    timings.stable = _warm_up(run, warmup, clock, timings.warmup_ns)
    gc.collect()
    collects = gc.isenabled()
    gc.disable()
    try:
        _warm_runs(run, runs, min_time_s, clock, timings.runs_ns, glance, tell)
    finally:
        if collects:
            gc.enable()
    return timings


def _time(run: Run, clock: Clock) -> int:
    start = clock()
    run()
    return clock() - start


def _warm_up(run: Run, count: int | None, clock: Clock, durations: list[int]) -> bool:
    """Whether the durations settled; a count that was asked for is taken as enough."""
    if count is not None:
        durations.extend(_time(run, clock) for _ in range(count))
        return True
    end = clock() + _MOST_WARMUP_NS
    while clock() < end:
        durations.append(_time(run, clock))
        if _settled(durations):
            return True
    return False


def _settled(durations: Sequence[int]) -> bool:
    if len(durations) < 2 * _WINDOW:
        return False
    before, after = median(durations[-2 * _WINDOW : -_WINDOW]), median(durations[-_WINDOW:])
    return abs(after - before) <= _STABLE_WITHIN * before


def _warm_runs(
    run: Run,
    count: int | None,
    min_time_s: float,
    clock: Clock,
    durations: list[int],
    glance: Callable[[], None],
    tell: Callable[[str, int, int | None], None],
) -> None:
    start = clock()
    wanted_ns = min(int(min_time_s * 1e9), _MOST_NS)
    glances = 0
    while True:
        done, passed = len(durations), clock() - start
        part = done / count if count else min(done / _LEAST_RUNS, passed / wanted_ns)
        if glances <= part * _MOST_GLANCES:
            glances = int(part * _MOST_GLANCES) + 1
            glance()
            tell("measure", done, count)
        if part >= 1 or (not count and (done >= _MOST_RUNS or passed >= _MOST_NS)):
            return
        durations.append(_time(run, clock))
