"""``edgewise profile --duration --thread-sweep``, and what the report shows of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgewise.runtime.profile.cold import drop_page_cache


@pytest.mark.slow
def test_latency_over_time_and_by_threads(cli: Any, built: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(built, tmp_path / "net.edge"))
    done = cli(
        "profile", bundle, "--duration", "2.2", "--runs", "20", "--threads", "1", "--thread-sweep", "1,2", "--cold",
        "-o", tmp_path / "net.profile.json", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert [round(point["at_s"]) for point in done.json["series"]] == [1, 2]
    assert all(point["median_ms"] > 0 for point in done.json["series"])
    assert [point["threads"] for point in done.json["thread_sweep"]] == [1, 2]
    assert all(point["median_ms"] > 0 for point in done.json["thread_sweep"])
    cold = done.json["cold"]
    assert cold["load_ms"] > 0 and cold["first_run_ms"] > 0 and cold["page_cache"].startswith(("dropped", "kept: "))
    assert cli("report", tmp_path).code == 0
    page = (tmp_path / "report.html").read_text()
    assert "Sustained, over time" in page and "By number of threads" in page and "cold start" in page


@pytest.mark.parametrize("text", ["0", "1,x", "1,,2", "-1"])
def test_numbers_of_threads_that_are_none(cli: Any, built: Path, text: str) -> None:
    done = cli("profile", built, "--thread-sweep", text)
    assert done.code == 2
    assert "--thread-sweep" in done.err


def test_whether_files_left_the_page_cache_is_what_the_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes(1 << 20))
    assert drop_page_cache(tmp_path).startswith(("dropped", "kept: the file system holds on to "))

    def away(*_: object) -> int:
        raise BlockingIOError

    monkeypatch.setattr(os, "preadv", away)
    assert drop_page_cache(tmp_path).startswith("dropped for the bundle's files")
    monkeypatch.setattr(os, "preadv", lambda *_: 1)
    assert drop_page_cache(tmp_path) == "kept: the file system holds on to a"
    monkeypatch.delattr(os, "posix_fadvise")
    assert drop_page_cache(tmp_path) == "kept: this system has no posix_fadvise"
