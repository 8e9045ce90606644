"""The measuring loop on a clock of its own: how many runs, when it is warm, when it stops."""

from __future__ import annotations

import gc
import itertools

import pytest

from edgewise.runtime.profile.timing import measure


class Fake:
    """A function that takes as long as it is told, on a clock that only it moves."""

    def __init__(self, durations_ns):
        self.durations = iter(durations_ns)
        self.now = self.calls = 0

    def run(self):
        took = next(self.durations)
        self.now += took
        self.calls += 1
        return took

    def clock(self):
        return self.now


def constant(ns: int) -> Fake:
    return Fake(itertools.repeat(ns))


def test_first_warm_up_and_runs_are_apart():
    fake = Fake([100, 50, 40, 10, 11, 12])
    timings = measure(fake.run, runs=3, warmup=2, clock=fake.clock)
    assert (timings.first_ns, timings.warmup_ns, timings.runs_ns, timings.stable) == (100, [50, 40], [10, 11, 12], True)


def test_no_warm_up():
    fake = constant(5)
    timings = measure(fake.run, runs=1, warmup=0, clock=fake.clock)
    assert (timings.warmup_ns, timings.runs_ns) == ([], [5])


def test_the_warm_up_ends_when_nothing_changes():
    falling = [1_000_000 // (1 + i) for i in range(12)]
    fake = Fake(itertools.chain([9], falling, itertools.repeat(1000)))
    timings = measure(fake.run, runs=4, clock=fake.clock)
    assert timings.stable
    assert len(timings.warmup_ns) >= len(falling) + 7
    assert timings.runs_ns == [1000] * 4


def test_a_warm_up_that_never_settles_ends_after_three_seconds():
    fake = Fake(int(1e6 * 1.2**i) for i in itertools.count())
    timings = measure(fake.run, runs=1, clock=fake.clock)
    assert not timings.stable
    assert 3e9 <= sum(timings.warmup_ns) < 5e9


@pytest.mark.parametrize(
    ("ns", "min_time_s", "count"),
    [
        (1_000_000, 0.5, 500),  # until the time has passed
        (100_000_000, 0.5, 20),  # at least twenty
        (10, 0.5, 10_000),  # at most ten thousand
        (10_000_000_000, 2.0, 6),  # at most a minute
        (1_000_000_000, 500.0, 60),
    ],
)
def test_how_many_runs_by_itself(ns, min_time_s, count):
    fake = constant(ns)
    timings = measure(fake.run, warmup=0, min_time_s=min_time_s, clock=fake.clock)
    assert len(timings.runs_ns) == count


@pytest.mark.parametrize("runs", [1, 3, 20, 500])
def test_the_machine_is_looked_at_before_between_and_after(runs):
    fake, seen, told = constant(10), [], []
    measure(
        fake.run, runs=runs, warmup=0, clock=fake.clock, glance=lambda: seen.append(fake.calls),
        tell=lambda task, done, total: told.append((done, total)),
    )  # fmt: skip
    assert seen[0] == 1  # after the first run, before the timed ones
    assert seen[-1] == 1 + runs
    assert min(runs, 20) < len(seen) <= 22
    assert told[-1] == (runs, runs)


def test_garbage_is_not_collected_while_measuring_and_is_again_after():
    seen = []
    measure(lambda: seen.append(gc.isenabled()) or 1, runs=2, warmup=0)
    assert seen == [True, False, False]
    assert gc.isenabled()

    def fail():
        if len(seen) > 4:
            raise KeyError
        seen.append(0)
        return 1

    with pytest.raises(KeyError):
        measure(fail, runs=9, warmup=0)
    assert gc.isenabled()


def test_a_sustained_measurement_has_a_point_about_every_second():
    fake = Fake(itertools.chain([5, 5], itertools.repeat(100_000_000, 20), itertools.repeat(150_000_000)))
    timings = measure(fake.run, runs=3, warmup=1, duration_s=4.0, clock=fake.clock, glance=lambda: "seen")
    assert timings.count == 34  # twenty in two seconds, then fourteen until four have passed
    assert [(round(point.at_s, 2), point.median_ms) for point in timings.series] == [
        (1, 100),
        (2, 100),
        (3.05, 150),
        (4.1, 150),
    ]
    assert {point.glance for point in timings.series} == {"seen"}
    assert len(timings.runs_ns) == timings.count


def test_a_long_one_keeps_ten_thousand_runs_and_six_hundred_points():
    fake = constant(50_000_000)
    timings = measure(fake.run, warmup=0, duration_s=1200.0, clock=fake.clock)
    assert (timings.count, len(timings.runs_ns), len(timings.series)) == (24_000, 10_000, 600)
