"""The profiler's warnings, each on samples made for it, and none on a calm measurement."""

from __future__ import annotations

import numpy as np
import pytest

from edgewise.runtime.profile.judge import (
    Evidence,
    coarse_timer,
    drift,
    fallback,
    few_runs,
    judge,
    noise,
    other_load,
    shared_core,
    slow_governor,
    throttling,
    unsettled,
)
from edgewise.runtime.profile.machine import Glance

RNG = np.random.default_rng(0)


def calm(count: int = 300, spread: float = 0.01) -> list[float]:
    return list(10 + spread * 10 * RNG.standard_normal(count))


def glances(clocks=(), throttles=(), busy=(), total=(), paces=()) -> list[Glance]:
    count = max(map(len, (clocks, throttles, busy, total, paces)))
    pick = lambda values, index: values[index] if values else None  # noqa: E731
    return [
        Glance(pick(clocks, i), pick(throttles, i), pick(busy, i), pick(total, i), None, pick(paces, i))
        for i in range(count)
    ]


def test_a_calm_measurement_has_no_warning():
    layers = [{"name": "a", "unit": "cpu"}] * 3
    seen = glances([3000, 2990, 3010] * 3, [4] * 9, busy=[0.1 * i for i in range(9)], total=[0.2 * i for i in range(9)])
    for _ in range(20):
        assert judge(Evidence(calm(), True, seen, 0.8, 1e-6, "performance", layers, "cpu")) == []


def test_every_warning_begins_with_its_kind():
    wild = [10.0, 50.0, 10.0, 10.0, 60.0, 10.0, 30.0, 30.0, 30.0, 30.0, 30.0, 30.0] * 3
    seen = glances([3000] * 3 + [1000] * 6, busy=[float(i) for i in range(9)], total=[float(i) for i in range(9)])
    layers = [{"name": "a", "unit": "cpu"}]
    found = judge(Evidence(wild, False, seen, 0.0, 1.0, "powersave", layers, "gpu"))
    kinds = [warning.split(":")[0] for warning in found]
    assert kinds == ["few runs", "warm-up", "noise", "throttling", "load", "clock", "timer", "fallback"]


@pytest.mark.parametrize(
    ("count", "says"), [(1, "1 warm runs"), (9, "use --runs 10"), (10, "p99"), (99, "p99"), (100, "")]
)
def test_few_runs(count, says):
    warning = few_runs(calm(count))
    assert says in warning
    assert bool(warning) == bool(says)


def test_unsettled():
    assert "had not settled" in unsettled(False)
    assert unsettled(True) == ""


@pytest.mark.parametrize(("end", "says"), [(1.2, "18% slower"), (0.8, "18% faster"), (1.0, ""), (1.03, "")])
def test_drift(end, says):
    runs = list(np.array(calm(300, 0.002)) * np.linspace(1, end, 300))
    warning = drift(runs)
    assert bool(warning) == bool(says)
    if says:
        word = says.split()[1]
        assert word in warning


def test_drift_is_not_seen_in_noise_or_few_runs():
    for _ in range(30):
        assert drift(calm(60, 0.2)) == ""
    assert drift([10.0] * 4 + [90.0] * 4) == ""


def test_noise_of_outliers():
    runs = calm(100)
    for index in range(0, 100, 10):
        runs[index] *= 3
    assert noise(runs).startswith("noise: 10 of 100 runs are outliers (the slowest takes 3")
    few = calm(100)
    few[5] = 100
    assert noise(few) == ""
    assert noise([10.0] * 95 + [10.5] * 5) == ""  # a hair's breadth is no outlier, however still the rest is


def test_noise_of_a_wide_spread():
    assert "spread by" in noise(list(RNG.uniform(5, 15, 200)))
    assert noise([1.0, 100.0]) == ""


def test_throttling_by_clock_and_by_counter():
    assert throttling(glances([3000] * 4 + [2000] * 4)).startswith("throttling: the clock fell from 3000 to 2000 MHz")
    assert throttling(glances([3000, 2950, 3000, 2900, 3000, 2950])) == ""
    assert throttling(glances([2000] * 4 + [3000] * 4)) == ""
    assert "2 times" in throttling(glances(throttles=[5, 5, 7]))
    assert throttling(glances(throttles=[5, 5, 5])) == ""
    assert throttling([]) == ""
    assert throttling([Glance(None, None, None, None)] * 9) == ""


def test_other_load():
    seen = glances(busy=[100.0, 101.0, 102.0], total=[400.0, 402.0, 404.0])
    assert other_load(seen, own_cpu_s=0.5).startswith("load: other programs used 38% of the processor")
    assert other_load(seen, own_cpu_s=1.9) == ""
    assert other_load(seen[:1], 0.0) == ""
    assert other_load([Glance(3000, None, None, None)] * 3, 0.0) == ""
    assert other_load(glances(busy=[1.0, 1.0], total=[4.0, 4.0]), 0.0) == ""


def test_a_core_that_something_shares():
    assert "up to 2.0 times as long at 4 of 12 looks" in shared_core(glances(paces=[50, 51, 100, 52, 50, 90] * 2))
    assert shared_core(glances(paces=[50, 51, 100, 52, 50, 55, 54, 50])) == ""  # once
    assert shared_core(glances(paces=[50, 100, 50, 100])) == ""  # too few looks
    assert shared_core(glances(clocks=[3000] * 9)) == ""


def test_governor():
    assert "'powersave'" in slow_governor("powersave")
    assert slow_governor("performance") == slow_governor(None) == ""


def test_coarse_timer():
    assert (
        coarse_timer([0.02] * 9, resolution_ms=0.001)
        == "timer: a run of 0.02 ms is only 20 steps of this machine's clock"
    )
    assert coarse_timer([0.2] * 9, resolution_ms=0.001) == ""
    assert coarse_timer([0.2] * 9, resolution_ms=0) == coarse_timer([], 1.0) == ""


def test_fallback_names_the_layers():
    layers = [{"name": f"l{i}", "unit": "cpu" if i % 2 else "gpu"} for i in range(16)]
    warning = fallback(layers, "gpu")
    assert warning == (
        "fallback: 8 of 16 layers did not run on gpu: l1 on cpu, l3 on cpu, l5 on cpu, l7 on cpu, l9 on cpu and 3 more"
    )
    assert fallback([layers[0]], "gpu") == fallback([], "gpu") == fallback(layers, "") == ""
