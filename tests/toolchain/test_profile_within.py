"""``profile --within``: more runs until the median is known, and what is said when it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edgewise.errors import ToolchainError
from edgewise.stages.precision import measure_within


def measured(scatter: float, asked: list[int | None]) -> Callable[[int | None], dict[str, Any]]:
    """A machine whose interval shrinks with the root of the number of runs: ``scatter`` of the median for one run."""

    def measure(runs: int | None) -> dict[str, Any]:
        asked.append(runs)
        count = runs or 20
        reach = 2.0 * scatter / count**0.5
        interval = [2.0 - reach / 2, 2.0 + reach] if count >= 5 else None
        return {"latency_ms": {"median": 2.0, "median_interval": interval, "samples": [2.0] * count}, "warnings": []}

    return measure


def test_it_measures_once_where_that_is_enough() -> None:
    for within in (None, 0.5):
        asked: list[int | None] = []
        measure_within(measured(0.1, asked), within, None, 0.0)
        assert asked == [None]


def test_it_takes_as_many_runs_as_it_needs() -> None:
    asked: list[int | None] = []
    result = measure_within(measured(0.2, asked), 0.01, None, 0.0)
    latency = result["latency_ms"]
    assert (latency["median_interval"][1] - 2.0) / 2.0 <= 0.01
    assert asked[0] is None and 400 <= len(latency["samples"]) < 1200, asked
    assert result["warnings"] == []
    asked.clear()
    assert len(measure_within(measured(0.02, asked), 0.01, 3, 0.0)["latency_ms"]["samples"]) == 60, "three say nothing"


def test_what_stays_wide_is_a_warning_and_ends() -> None:
    asked: list[int | None] = []
    result = measure_within(measured(50.0, asked), 0.001, None, 0.0)
    assert result["warnings"][0].startswith("interval: the median is known to within")
    assert asked == [None, 400, 8000, 30000], "a minute of runs of 2 ms, and no more"


def test_a_share_that_is_none_is_refused(cli: Any, built: Any) -> None:
    for share, duration in ((0.0, 0.0), (1.0, 0.0), (0.01, 3.0)):
        with pytest.raises(ToolchainError, match="--within"):
            measure_within(measured(0.1, []), share, None, duration)
    done = cli("profile", built, "--within", "2")
    assert done.code == 2 and "a share between 0 and 1" in done.err


@pytest.mark.slow
def test_it_goes_through_the_command_line(cli: Any, built: Any) -> None:
    done = cli("profile", built, "--within", "0.9", "--runs", "3", "--threads", "1", "--json")
    assert done.code == 0 and len(done.json["latency_ms"]["samples"]) >= 6
