"""``edgewise sweep``: a real cluster, a worker that is killed, a device that is not there, regressions; and its store."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from edgewise.errors import ToolchainError
from edgewise.fleet.compare import compare
from edgewise.fleet.jobs import Job, jobs_of
from edgewise.fleet.store import Store

_RECIPE = """
source: {source}
export: null
targets: [cpu]
build: {{options: {{engine: native}}}}
profile: {{threads: 1, runs: 20, warmup: 2, per_layer: false}}
"""
_DEVICES = """
[one]
address = "local"
[gone]
address = "ssh://nobody@127.0.0.1:1"
"""


@pytest.fixture
def lab(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recipe `net.yaml` and a devices.toml."""
    shutil.copy(tiny, tmp_path / "tiny.onnx")
    (tmp_path / "net.yaml").write_text(_RECIPE.format(source="tiny.onnx"))
    (tmp_path / "devices.toml").write_text(_DEVICES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEWISE_DEVICES", str(tmp_path / "devices.toml"))
    return tmp_path


@pytest.mark.slow
def test_a_killed_worker_and_a_device_that_is_gone(lab: Path, deadly: Any, cli: Any) -> None:
    marker = deadly(1, 3, 8, 8)
    (lab / "deadly.yaml").write_text((lab / "net.yaml").read_text() + "verify: {data: 'deadly.py:samples'}\n")
    done = cli("sweep", "deadly.yaml", "--devices", "one,gone", "-o", "out", "--json")
    assert done.code == 1  # for the device that is gone
    rows = {row["device"]: row for row in done.json["rows"]}
    assert marker.exists()  # a worker did die
    failed = {name: row["error"] for name, row in rows.items() if row["status"] == "failed"}
    assert set(failed) == {"gone"}, failed
    assert "cannot reach the device" in failed["gone"]
    assert rows["one"]["median_ms"] > 0
    assert "Sweep 1" in (lab / "out" / "report.html").read_text()

    with Store(lab / "out" / "sweep.sqlite") as store:
        before = store.rows(1)
    # The machine is busy with other tests: this is not about how fast it is.
    done = cli("sweep", "deadly.yaml", "--devices", "one", "-o", "out", "--max-slowdown", "99", "--json")
    assert (done.code, done.json["sweep"]) == (0, 2)  # other jobs: another sweep
    assert done.json["against"]["sweep"] == 1
    with Store(lab / "out" / "sweep.sqlite") as store:
        assert store.rows(1) == before


def job(name: str = "net", device: str = "one", key: str = "k") -> Job:
    return Job(name, device, "cpu", {}, {}, "out", key)


def measured(median: float) -> dict[str, Any]:
    return {"profile": {"latency_ms": {"median": median}}}


def test_a_sweep_goes_on_until_all_of_it_is_done(tmp_path: Path) -> None:
    jobs = [job(key="a"), job(device="two", key="b")]
    with Store(tmp_path / "s.sqlite", create=True) as store:
        assert store.begin(jobs) == 1
        store.record(1, jobs[0], "done", measured(2.0))
        store.record(1, jobs[1], "failed", {"error": {"message": "gone"}})
    with Store(tmp_path / "s.sqlite", create=True) as store:
        assert store.begin(jobs) == 1
        assert store.done(1) == {"a"}
        store.record(1, jobs[1], "done", measured(3.0))
        assert [(row["device"], row["status"], row["median_ms"]) for row in store.rows(1)] == [
            ("one", "done", 2.0),
            ("two", "done", 3.0),
        ]
        assert store.begin(jobs) == 2
        assert store.begin([job(key="c")]) == 3


def test_nothing_that_was_recorded_can_be_changed(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite", create=True) as store:
        store.record(store.begin([job()]), job(), "done", measured(1.0))
    database = sqlite3.connect(tmp_path / "s.sqlite")
    for statement in ("UPDATE results SET median_ms = 0", "DELETE FROM results", "DELETE FROM sweeps"):
        with pytest.raises(sqlite3.IntegrityError, match="only grow"):
            database.execute(statement)


def test_a_store_that_is_none_or_full_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="no such file"):
        Store(tmp_path / "none")
    (tmp_path / "other").write_text("something else entirely, and long enough to be no database")
    with pytest.raises(ToolchainError, match="not a database"):
        Store(tmp_path / "other")
    with Store(tmp_path / "s.sqlite", create=True) as store:
        number = store.begin([job()])
        store.record(number, job(), "done", measured(1.0))
        store._database.execute("PRAGMA max_page_count = 1")
        with pytest.raises(ToolchainError, match=r"full.*what was recorded before is still there"):
            store.record(number, job(key="b"), "done", measured(1.0) | {"more": "x" * 100_000})
        assert [row["key"] for row in store.rows(number)] == ["k"]


def row(median: float | None, device: str = "one") -> dict[str, Any]:
    result = {} if median is not None else {"error": {"message": "gone"}}
    status = "done" if median is not None else "failed"
    return {"recipe": "net", "device": device, "target": "cpu", "status": status, "median_ms": median, "result": result}


@pytest.mark.parametrize(
    ("before", "now", "regressed", "change"),
    [(1.0, 1.09, False, 0.09), (1.0, 1.11, True, 0.11), (1.0, 0.5, False, -0.5), (1.0, None, True, None), (None, 1.0, False, None), (None, None, False, None)],
)  # fmt: skip
def test_what_became_slower_or_broke_is_a_regression(before: Any, now: Any, regressed: bool, change: Any) -> None:
    (told,) = compare([row(now)], [row(before), row(9.0, "two")], 0.1)
    assert told["regressed"] is regressed
    assert told["change"] == (None if change is None else pytest.approx(change))
    (alone,) = compare([row(now)], [], 0.1)
    assert not alone["regressed"]


def test_a_regression_is_exit_code_1(lab: Path, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (target,) = jobs_of(["net.yaml"], ["one"], Path("out"))
    with Store(lab / "before" / "sweep.sqlite", create=True) as store:
        store.record(store.begin([target]), target, "done", measured(1.0))
    monkeypatch.setattr(
        "edgewise.verbs.sweep._work",
        lambda left, store, number, *_: store.record(number, left[0], "done", measured(1.5)),
    )
    done = cli("sweep", "net.yaml", "--devices", "one", "-o", "out", "--against", "before", "--json")
    assert done.code == 1, done.err
    assert "a regression" in done.err and "net (cpu) on one" in done.err
    assert done.json["rows"][0]["change"] == pytest.approx(0.5)
    with Store(lab / "out" / "sweep.sqlite") as store:
        assert [each["key"] for each in store.rows(1)] == [target.key]
    done = cli(
        "sweep", "net.yaml", "--devices", "one", "-o", "out", "--against", "before", "--max-slowdown", "0.6", "--json"
    )
    assert done.code == 0, done.err


def test_what_cannot_be_planned(lab: Path, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgewise.fleet.cluster._CONNECT_S", 0.5)
    (lab / "other").mkdir()
    shutil.copy("net.yaml", "other/net.yaml")
    assert "a second recipe 'net'" in cli("sweep", "net.yaml", "other/net.yaml", "--devices", "one", "-o", "out").err
    assert "each device once" in cli("sweep", "net.yaml", "--devices", "one,one", "-o", "out").err
    assert "unknown device" in cli("sweep", "net.yaml", "--devices", "three", "-o", "out").err
    (lab / "devices.toml").write_text('[phone]\naddress = "adb:1"\nprofile = "iphone-16-pro"\n')
    assert "no target that serves the device" in cli("sweep", "net.yaml", "--devices", "phone", "-o", "out").err
    assert cli("sweep", "net.yaml", "--devices", "local", "-o", "out", "--scheduler", "tcp://127.0.0.1:1").code == 2
    assert not list((lab / "out").glob("net"))
