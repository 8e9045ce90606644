"""The measurement itself: a first run, a warm-up until it is stable, warm runs."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

Run = Callable[[], int]
Clock = Callable[[], int]

DEFAULT_MIN_TIME_S = 2.0
_WINDOW = 5
_STABLE_WITHIN = 0.05
_MOST_WARMUP_NS = 3_000_000_000
_LEAST_RUNS, _MOST_RUNS = 20, 10_000
_MOST_NS = 60_000_000_000
_MOST_GLANCES = 20
_STRETCH_NS, _MOST_POINTS = 1_000_000_000, 600


@dataclass(frozen=True)
class Point:
    """A stretch of a sustained measurement: when it ended, the median of its runs, and the machine then."""

    at_s: float
    median_ms: float
    glance: Any


@dataclass(frozen=True)
class Length:
    """How long to measure: ``runs``, or for ``min_time_s``; ``duration_s`` above 0 goes over both."""

    runs: int | None
    min_time_s: float
    duration_s: float

    def part(self, done: int, passed_ns: int) -> float:
        """How much is done; 1 and more ends it."""
        if self.duration_s > 0:
            return passed_ns / (self.duration_s * 1e9)
        if self.runs:
            return done / self.runs
        if done >= _MOST_RUNS or passed_ns >= _MOST_NS:
            return 1.0
        return min(done / _LEAST_RUNS, passed_ns / min(int(self.min_time_s * 1e9), _MOST_NS))


@dataclass
class Timings:
    """Durations in nanoseconds, in the order of measurement. ``stable``: the warm-up ended because nothing changed any more.

    ``count``: warm runs in all; of a sustained measurement the first 10,000 are in ``runs_ns``, and ``series`` has a point about every second.
    """

    first_ns: int = 0
    warmup_ns: list[int] = field(default_factory=list)
    runs_ns: list[int] = field(default_factory=list)
    stable: bool = True
    count: int = 0
    series: list[Point] = field(default_factory=list)


def measure(
    run: Run,
    *,
    runs: int | None = None,
    warmup: int | None = None,
    min_time_s: float = DEFAULT_MIN_TIME_S,
    duration_s: float = 0.0,
    clock: Clock = time.perf_counter_ns,
    glance: Callable[[], Any] = lambda: None,
    tell: Callable[[str, int, int | None], None] = lambda task, done, total: None,
) -> Timings:
    """Run something again and again that tells what each run took.

    Args:
        run: runs once and gives the nanoseconds.
        runs: so many warm runs; None: at least 20, until ``min_time_s`` have passed (at most 10,000 runs or a minute).
        warmup: so many runs before them; None: until the median of five runs is within 5 % of the five before, or three
            seconds have passed.
        min_time_s: see ``runs``.
        duration_s: above 0: sustained, for so long whatever the others say.
        clock: nanoseconds, for how long all of it takes.
        glance: called some twenty times between runs, and for each point of a sustained measurement, to look at the machine.
        tell: progress.
    """
    timings = Timings(first_ns=run())
    timings.stable = _warm_up(run, warmup, clock, timings.warmup_ns)
    gc.collect()
    collects = gc.isenabled()
    gc.disable()
    try:
        _warm_runs(run, Length(runs, min_time_s, duration_s), clock, timings, glance, tell)
    finally:
        if collects:
            gc.enable()
    return timings


def _warm_up(run: Run, count: int | None, clock: Clock, durations: list[int]) -> bool:
    """Whether the durations settled; a count that was asked for is taken as enough."""
    if count is not None:
        durations.extend(run() for _ in range(count))
        return True
    end = clock() + _MOST_WARMUP_NS
    while clock() < end:
        durations.append(run())
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
    length: Length,
    clock: Clock,
    timings: Timings,
    glance: Callable[[], Any],
    tell: Callable[[str, int, int | None], None],
) -> None:
    start = clock()
    stretch = _Stretch(max(_STRETCH_NS, int(length.duration_s * 1e9) // _MOST_POINTS))
    glances = 0
    while True:
        passed = clock() - start
        part = length.part(timings.count, passed)
        if glances <= part * _MOST_GLANCES:
            glances = int(part * _MOST_GLANCES) + 1
            glance()
            tell("measure", timings.count, length.runs)
        if part >= 1:
            return
        duration = run()
        timings.count += 1
        if length.duration_s <= 0 or timings.count <= _MOST_RUNS:
            timings.runs_ns.append(duration)
        if length.duration_s > 0 and stretch.ended(duration, clock() - start):
            timings.series.append(Point(stretch.began / 1e9, stretch.median_ns / 1e6, glance()))


class _Stretch:
    """The runs since the last point; ``began`` is when the present stretch did, in ns since the first run."""

    def __init__(self, length_ns: int) -> None:
        self._length_ns, self._durations = length_ns, list[int]()
        self.began, self.median_ns = 0, 0.0

    def ended(self, duration_ns: int, now_ns: int) -> bool:
        self._durations.append(duration_ns)
        if now_ns - self.began < self._length_ns:
            return False
        self.median_ns = median(self._durations)
        self._durations.clear()
        self.began = now_ns
        return True
