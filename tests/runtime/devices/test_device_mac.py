"""A Core ML bundle on a Mac over SSH: a real OpenSSH server, and a stand-in for coremltools that says so in everything it tells.

No Mac has been reached. What is tested is all of ours: what is sent, what runs there, what comes back, and what goes wrong.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgewise
from edgewise.runtime.bundle import create_bundle, save_reference
from edgewise.runtime.devices import DeviceError
from edgewise.runtime.errors import GateError

pytestmark = [pytest.mark.slow, pytest.mark.e2e]
STAND_IN = Path(__file__).with_name("mac_standin")
PORT = {"dtype": "float32", "scalar": False}


@pytest.fixture
def mac_bundle(tmp_path: Path) -> Callable[..., Path]:
    """A package that the stand-in loads: y = 2x, with ``spoil`` added to the reference."""

    def make(spoil: float = 0.0) -> Path:
        path = tmp_path / "net.edge"
        inputs = [{"x": np.full((2, 3), index, np.float32)} for index in range(1, 4)]
        outputs = [{"y": sample["x"] * 2 + np.float32(spoil)} for sample in inputs]
        ports = {
            "inputs": [{"name": "x", "coreml": "x_in", **PORT}],
            "outputs": [{"name": "y", "coreml": "y_out", **PORT}],
        }
        with create_bundle(path) as (draft, manifest):
            (draft / "model.mlpackage").mkdir()
            (draft / "model.mlpackage/Manifest.json").write_text("{}")
            save_reference(draft / "reference.npz", inputs, outputs)
            manifest |= {
                "inputs": [{"name": "x", "dtype": "float32", "shape": [2, 3]}],
                "outputs": [{"name": "y", "dtype": "float32", "shape": [2, 3]}],
                "target": "coreml",
                "device": "iphone-15-pro",
                "engine": {
                    "kind": "coreml", "files": ["model.mlpackage/Manifest.json"], "versions": {}, "layers": [],
                    "settings": {"package": "model.mlpackage", **ports}, "notes": [],
                },
            }  # fmt: skip
        return path

    return make


@pytest.fixture
def mac(sshd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Name a device whose Python has the stand-in; ``more`` goes into that Python's environment.

    It is this Python, which another user may not read: the server lets ourselves in.
    """

    def name(more: str = "", python: str = sys.executable) -> str:
        script = tmp_path / "python3"
        script.write_text(f'#!/bin/sh\nexec env {more} PYTHONPATH="$PYTHONPATH:{STAND_IN}" {python} "$@"\n')
        script.chmod(0o755)
        address = sshd.address().replace(f"//{sshd.user}@", f"//{getpass.getuser()}@")
        devices = tmp_path / "devices.toml"
        devices.write_text(f'[mac]\naddress = "{address}"\nrunner = "{script}"\nfolder = "{tmp_path / "sent"}"\n')
        monkeypatch.setenv("EDGEWISE_DEVICES", str(devices))
        return "mac"

    return name


def test_a_profile_has_every_unit_and_what_ran_where(mac: Any, mac_bundle: Any) -> None:
    found = edgewise.profile(mac_bundle(), device=mac(), runs=12, warmup=1, per_layer=True)
    assert found["parity"]["passed"] and found["parity"]["outputs"][0]["exact"]
    assert found["engine"]["version"] == "9.0 (a stand-in)" and "stand-in" in found["engine"]["macos"]
    assert len(found["latency_ms"]["samples"]) == 12 and found["load_ms"] > 0 and found["first_run_ms"] > 0
    assert [(layer["name"], layer["unit"]) for layer in found["layers"]] == [
        ("conv_0", "neural engine"),
        ("relu_0", "cpu"),
    ]
    cpu, gpu, neural = found["variants"]
    assert [each["settings"]["compute_units"] for each in (cpu, gpu, neural)] == [
        "CPU_ONLY",
        "CPU_AND_GPU",
        "CPU_AND_NE",
    ]
    assert (cpu["unit"], neural["unit"]) == ("cpu", "neural engine")
    assert cpu["first_run_ms"] > 0 and cpu["load_ms"] > 0 and len(neural["latency_ms"]["samples"]) == 12
    assert "no GPU here" in gpu["error"]["found"]


def test_verify_there_and_send_nothing_twice(mac: Any, mac_bundle: Any) -> None:
    tasks: list[str] = []
    for _ in range(2):
        tasks.clear()
        found = edgewise.verify(mac_bundle(), device=mac(), progress=lambda task, done, total: tasks.append(task))
    assert found["parity"]["passed"] and found["samples"] == 3
    assert "a stand-in" in found["how"] and "on mac " in found["how"]
    assert "send to the device" not in tasks


def test_outputs_that_differ_there_fail_the_gate(mac: Any, mac_bundle: Any) -> None:
    with pytest.raises(GateError, match="do not agree"):
        edgewise.verify(mac_bundle(spoil=3.0), device=mac())


def test_a_crash_there_is_an_error_with_its_last_words(mac: Any, mac_bundle: Any) -> None:
    with pytest.raises(DeviceError, match="Python ended without an answer") as caught:
        edgewise.verify(mac_bundle(), device=mac("STAND_IN_CRASHES=1"))
    assert "exit status 132" in caught.value.found and "illegal instruction" in caught.value.found
    with pytest.raises(DeviceError, match="the process that measures crashed") as caught:
        edgewise.profile(mac_bundle(), device="mac", runs=2, warmup=0)
    assert "illegal instruction" in caught.value.found and "mac, " in caught.value.where


def test_a_python_without_numpy_is_said_so(mac: Any, mac_bundle: Any) -> None:
    with pytest.raises(DeviceError, match="no Python that can run the bundle") as caught:
        edgewise.profile(mac_bundle(), device=mac(python="/usr/bin/env -i /usr/bin/python3 -S"))
    assert "numpy" in caught.value.found and "runner" in caught.value.fix


def test_what_is_no_mac_is_refused(sshd: Any, mac_bundle: Any) -> None:
    with pytest.raises(DeviceError, match="the device has no Core ML") as caught:
        edgewise.profile(mac_bundle(), device=sshd.address())
    assert "Linux" in caught.value.found
