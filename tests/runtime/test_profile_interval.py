"""Intervals of medians, and two bundles in turns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.errors import ToolchainError
from edgewise.runtime.profile.interval import median_interval
from edgewise.runtime.profile.pair import profile_pair
from edgewise.verbs.profile import profile_two


def test_the_interval_holds_the_median_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        interval = median_interval(generator.lognormal(0.0, 0.3, 40))
        assert interval is not None
        held += interval[0] <= 1.0 <= interval[1]
    assert 0.86 <= held / 200 <= 0.99


def test_neighbours_that_belong_together_make_it_wider() -> None:
    generator = np.random.default_rng(2)
    steps = np.repeat(generator.normal(10.0, 1.0, 25), 20)
    shuffled = generator.permutation(steps)

    def width(values: np.ndarray) -> float:
        low, high = median_interval(values) or (0, 0)
        return high - low

    assert width(steps) > 1.5 * width(shuffled)


def test_a_core_that_is_shared_for_stretches_of_hundreds_of_runs() -> None:
    """Two speeds in turns, as on a machine with neighbours: the interval holds the median over very many such stretches, nearly as often as it says."""
    generator = np.random.default_rng(3)

    def series(count: int) -> np.ndarray:
        lengths = generator.exponential(100, count // 20).astype(int) + 1
        speeds = np.repeat(np.arange(len(lengths)) % 2, lengths)[:count]
        return 10.0 + 0.6 * speeds + 0.2 * generator.lognormal(0, 0.5, count)

    median, held = float(np.median(series(1_000_000))), 0
    for _ in range(40):
        low, high = median_interval(series(1000)) or (0, 0)
        held += low <= median <= high
    assert held >= 26  # with blocks of n^(1/3) it is 14


def test_it_is_the_same_every_time_and_needs_five_runs() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert median_interval(values) == median_interval(values)
    assert median_interval(values[:4]) is None
    assert median_interval([2.0] * 5) == (2.0, 2.0)


@pytest.mark.slow
def test_a_bundle_differs_from_a_larger_one_and_not_from_itself(make_bundle: Any) -> None:
    small = make_bundle("small")
    same = profile_pair(small, small, threads=1, rounds=30)
    assert 0.8 < same["ratio"]["low"] <= same["ratio"]["median"] <= same["ratio"]["high"] < 1.25
    empty = make_bundle("empty", engine={"kind": "null", "settings": {}})
    told = profile_pair(empty, small, threads=1, rounds=10)
    assert told["differs"]
    assert told["ratio"]["low"] > 1.2  # the null engine computes nothing
    assert len(told["a"]["latency_ms"]["samples"]) == 10


@pytest.mark.slow
def test_options_of_one_bundle_are_refused(make_bundle: Any) -> None:
    path: Path = make_bundle()
    with pytest.raises(ToolchainError, match="--per-layer"):
        profile_two(path, path, alone={"per_layer": True, "function": None})
