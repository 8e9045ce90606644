"""``edgewise profile --duration --thread-sweep``, and what the report shows of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow
def test_latency_over_time_and_by_threads(cli: Any, built: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(built, tmp_path / "net.edge"))
    done = cli(
        "profile", bundle, "--duration", "2.2", "--runs", "20", "--threads", "1", "--thread-sweep", "1,2",
        "-o", tmp_path / "net.profile.json", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert [round(point["at_s"]) for point in done.json["series"]] == [1, 2]
    assert all(point["median_ms"] > 0 for point in done.json["series"])
    assert [point["threads"] for point in done.json["thread_sweep"]] == [1, 2]
    assert all(point["median_ms"] > 0 for point in done.json["thread_sweep"])
    assert cli("report", tmp_path).code == 0
    page = (tmp_path / "report.html").read_text()
    assert "Sustained, over time" in page and "By number of threads" in page


@pytest.mark.parametrize("text", ["0", "1,x", "1,,2", "-1"])
def test_numbers_of_threads_that_are_none(cli: Any, built: Path, text: str) -> None:
    done = cli("profile", built, "--thread-sweep", text)
    assert done.code == 2
    assert "--thread-sweep" in done.err
