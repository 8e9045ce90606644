"""One sweep through all that can die: the scheduler, a worker, an agent, an SSH connection, a device's disk. The rest is measured."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgewise.errors import ToolchainError
from edgewise.fleet.store import Store
from edgewise.verbs.sweep import sweep as run_sweep

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

_NET = """
<ir_version: 8, opset_import: ["" : 18]>
net (float[1, 8] x) => (float[1, 5] y) { y = MatMul (x, w) }
"""
_RECIPE = """
source: net.onnx
targets: [cpu]
build: {options: {engine: native}}
verify: {data: 'deadly.py:samples'}
profile: {threads: 1, duration_s: 1.2, per_layer: false}
"""
_LAB = """
import signal
from edgewise.fleet.cluster import _own
with _own({resources}) as cluster:
    print(cluster.scheduler_address, flush=True)
    signal.pause()
"""
_DEVICES = ("good", "killed", "cut", "full")


@pytest.fixture
def lab(
    sshd: Any, small_disk: Path, agents: Path, deadly: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder with a recipe, and a devices.toml whose devices are one user's folders; this machine is one more."""
    model = onnx.parser.parse_model(_NET)
    weights = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    onnx.save(model, tmp_path / "net.onnx")
    (tmp_path / "net.yaml").write_text(_RECIPE)
    deadly(1, 8)
    folders = {name: sshd.home / name for name in _DEVICES} | {"full": small_disk}
    entries = [f'[{name}]\naddress = "{sshd.address()}"\nfolder = "{folder}"\n' for name, folder in folders.items()]
    (tmp_path / "devices.toml").write_text("\n".join([*entries, '[here]\naddress = "local"\n']))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEWISE_DEVICES", str(tmp_path / "devices.toml"))
    monkeypatch.setenv("EDGEWISE_AGENTS", str(agents))
    yield tmp_path


def running(folder: Path) -> list[int]:
    """The processes whose program lies in a device's folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str((place / "exe").readlink()).startswith(f"{folder}/store/"):
                found.append(int(place.name))
    return found


@contextlib.contextmanager
def deaths(sshd: Any) -> Iterator[set[str]]:
    """Kill the agent of one device and the connection of another, each once, as soon as the agent runs."""
    over, died = threading.Event(), set[str]()

    def watch() -> None:
        while not over.wait(0.02):
            if "killed" not in died and (agents := running(sshd.home / "killed")):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(agents[0], signal.SIGKILL)
                died.add("killed")
            if "cut" not in died and running(sshd.home / "cut"):
                sshd.cut()
                died.add("cut")

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield died
    finally:
        over.set()
        thread.join()


def sweep(**options: Any) -> dict[str, Any]:
    return run_sweep(["net.yaml"], "out", devices=["here", *_DEVICES], **options)


def test_whatever_dies_the_rest_is_measured_and_nothing_recorded_is_lost(sshd: Any, lab: Path) -> None:
    code = textwrap.indent(_LAB.format(resources=["local", f"127.0.0.1:{sshd.port}"]), "    ")
    (lab / "lab.py").write_text(f"if __name__ == '__main__':\n{code}")
    scheduler = subprocess.Popen(
        [sys.executable, str(lab / "lab.py")], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert scheduler.stdout
    address = scheduler.stdout.readline().strip()

    def kill(task: str, done: int, total: int | None) -> None:
        if task == "jobs" and done == 1:  # the first is on the disk
            os.killpg(scheduler.pid, signal.SIGKILL)

    try:
        with pytest.raises(ToolchainError, match=r"the scheduler is gone.*goes on with what is left"):
            sweep(scheduler=address, progress=kill)
    finally:
        scheduler.kill()
        scheduler.wait()
    assert (lab / "marker").exists(), "a worker did die"
    with Store(lab / "out" / "sweep.sqlite") as store:
        (kept,) = store.rows(1)
    with deaths(sshd) as died:
        result = sweep()
    assert result["sweep"] == 1 and result["exit_code"] == 1
    rows = {row["device"]: row for row in result["rows"]}
    errors = {
        "killed": "the agent ended without an answer",
        "cut": "the device is gone",
        "full": "the device is full",
    }
    # What the first run had recorded before its scheduler died is not done again.
    expected = {name: text for name, text in errors.items() if name != kept["device"] or name == "full"}
    assert {name for name, row in rows.items() if row["status"] == "failed"} == set(expected)
    for name, text in expected.items():
        assert text in rows[name]["error"]
    assert {"killed", "cut"} - {kept["device"]} == died
    assert all(rows[name]["median_ms"] > 0 for name in set(rows) - set(expected))
    with Store(lab / "out" / "sweep.sqlite") as store:
        now = {row["device"]: row for row in store.rows(1)}
    if kept["status"] == "done":
        assert now[kept["device"]] == kept
    assert len(now) == 5 and "Sweep 1" in (lab / "out" / "report.html").read_text()
