"""Energy on the device that is profiled: its sensors are read there, by the agent or by its Python, over SSH and over adb.

The sensors are files of a folder that stands for the device's root (power.py).
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

import edgewise
from edgewise.runtime.devices import open_device, parse_address
from edgewise.runtime.devices.watched import Watch
from edgewise.runtime.energy import charge

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

_NET = """
<ir_version: 8, opset_import: ["" : 18]>
net (float[2, 3] x) => (float[2, 3] y) { y = Add (x, x) }
"""
_TEGRASTATS = """#!/bin/sh
[ "$1" = --interval ] || exit 1
while :; do
  echo "RAM 2786/7471MB CPU [1%@729] VDD_IN $(cat {power})mW/4893mW VDD_CPU_GPU_CV 482mW/481mW"
  sleep 0.03
done
"""


def check(told: dict[str, Any], power: Any, method: str) -> None:
    energy = told["energy"]
    assert energy, told["energy_reason"]
    assert method in energy["method"]
    assert energy["idle_w"] == pytest.approx(power.IDLE_W, rel=0.15)
    assert energy["total_w"] == pytest.approx(power.BUSY_W, rel=0.15)
    per_run = energy["mean_w"] * energy["window_s"] / energy["inferences"]
    assert energy["joules_per_inference"] == pytest.approx(per_run)
    assert energy["sampling_hz"] > 5


def name_device(place: Path, address: str, monkeypatch: pytest.MonkeyPatch, **entry: object) -> str:
    lines = [f'{key} = "{value}"' for key, value in {"address": address, **entry}.items()]
    (place / "devices.toml").write_text("\n".join(["[board]", *lines]))
    monkeypatch.setenv("EDGEWISE_DEVICES", str(place / "devices.toml"))
    return "board"


@pytest.fixture(autouse=True)
def built_agents(agents: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWISE_AGENTS", str(agents))


def test_the_agent_reads_the_boards_sensor_over_ssh(
    sshd: Any, native_bundle: Any, power: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = name_device(tmp_path, sshd.address(), monkeypatch, sensors=power.begin("--min-time", "rapl"))
    told = edgewise.profile(native_bundle(), device=board, threads=1, duration_s=0.7)
    check(told, power, "RAPL (powercap): package-0, read on the device")
    assert told["energy"]["inferences"] >= len(told["latency_ms"]["samples"])


def test_a_phones_battery_over_adb_and_what_keeps_it_from_telling(
    phone: Any, native_bundle: Any, power: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, address = power.begin("--min-time", "battery"), f"adb:127.0.0.1:{phone.port}"
    board = name_device(tmp_path, address, monkeypatch, sensors=root, folder=tmp_path / "sent")
    told = edgewise.profile(native_bundle(), device=board, threads=1, duration_s=0.7)
    check(told, power, "battery battery (power_supply), read on the device")
    power.put(root / "sys/class/power_supply/battery/status", "Charging")
    told = edgewise.profile(native_bundle(), device=board, threads=1, runs=3)
    assert told["energy"] is None and "charging, so it does not carry the load" in told["energy_reason"]


def test_tegrastats_is_started_beside_the_program_and_ends_with_it(
    phone: Any, native_bundle: Any, power: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Jetson is reached over SSH; but the stand-in for a phone is who takes our PATH."""
    root, program = power.begin("--min-time", "milliwatts"), tmp_path / "bin" / "tegrastats"
    program.parent.mkdir()
    program.write_text(_TEGRASTATS.format(power=root / "milliwatts"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    address = f"adb:127.0.0.1:{phone.port}"
    board = name_device(tmp_path, address, monkeypatch, sensors=root, folder=tmp_path / "sent")
    told = edgewise.profile(native_bundle(), device=board, threads=1, duration_s=0.7)
    check(told, power, "tegrastats, board input, read on the device")
    assert not power.at_work(str(program))


def test_a_phone_that_shows_its_charge_alone_is_measured_for_long(
    phone: Any, native_bundle: Any, power: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, program = power.begin("--min-time", "charge"), tmp_path / "bin" / "dumpsys"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat {root}/$1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    address = f"adb:127.0.0.1:{phone.port}"
    board = name_device(tmp_path, address, monkeypatch, sensors=root, folder=tmp_path / "sent")
    told = edgewise.profile(native_bundle(), device=board, threads=1, runs=3)
    assert told["energy"] is None and "too coarse for so short a run" in told["energy_reason"]
    monkeypatch.setattr(
        charge, "LEAST_S", 0.5
    )  # a counter of finer steps than a phone's, so that it does not take minutes
    monkeypatch.setattr(charge, "IDLE_S", 0.6)
    monkeypatch.setattr(charge, "LINES", (*charge.LINES[:2], charge.LINES[2].replace("sleep 1", "sleep 0.04")))
    told = edgewise.profile(native_bundle(), device=board, threads=1, duration_s=1.5)
    check(told, power, "battery charge counter (dumpsys battery), read on the device")
    monkeypatch.setattr(charge, "LEAST_STEPS", 100)
    told = edgewise.profile(native_bundle(), device=board, threads=1, duration_s=0.5)
    assert told["energy"] is None and "too seldom to tell" in told["energy_reason"]


def test_the_python_there_reads_its_boards_rails(host: Any, power: Any, doubling_bundle: Any) -> None:
    root = power.begin("edgewise.runtime.profile.worker", "rails")
    model = onnx.parser.parse_model(_NET).SerializeToString()
    made = doubling_bundle("onnxruntime", content=model, name="model.onnx", providers=["CPUExecutionProvider"])
    told = edgewise.profile(made, device=host(sensors=root), threads=1, duration_s=0.7)
    check(told, power, "INA power monitor (hwmon): VDD_IN")


def test_the_agent_reads_a_jetsons_rails_beside_trtexec(
    host: Any, power: Any, doubling_bundle: Any, trtexec: Path
) -> None:
    root = power.begin(str(trtexec), "rails")
    made = doubling_bundle("tensorrt", library="tensorrt", sm=87)
    told = edgewise.profile(made, device=host(sensors=root), runs=70)
    check(told, power, "INA power monitor (hwmon): VDD_IN, read on the device")
    assert told["energy"]["window_s"] == pytest.approx(0.6915)


def test_what_cannot_be_read_is_a_reason(sshd: Any, power: Any) -> None:
    """Files that only root may read, where the device's user is another; an agent that said nothing; a meter that is named."""
    for sensor in (power.rapl, power.rails):
        sensor(power.root, 2.0, 100.0)
    address = replace(parse_address(sshd.address()), sensors=str(power.root))
    with open_device(address) as device:
        watch = Watch(device, address, ["agent"])
        assert watch.energy({}, (0, 1), 1).startswith("RAPL (powercap): package-0: the agent did not say")
        assert watch.beside(["run"])[:4] == ["agent", "--watch", "1.0", "0.05"] and watch.beside(["run"])[-2:] == [
            "--",
            "run",
        ]
        if os.geteuid() == 0:
            (power.root / "sys/class/powercap/intel-rapl:0/energy_uj").chmod(0)
            watch = Watch(device, address, ["agent"])
            assert [word for word in watch.beside(["run"]) if "input" in word] == [
                f"{power.root}/sys/class/hwmon/hwmon3/{name}" for name in ("in1_input", "curr1_input")
            ]
            power.put(power.root / "sys/class/hwmon/hwmon3/name", "nct6775")
            reason = Watch(device, address, ["agent"]).energy({}, (0, 1), 1)
            assert (
                reason == "RAPL: sys/class/powercap/intel-rapl:0/energy_uj cannot be read (only root may, by default)"
            )
        watch = Watch(device, replace(address, meter="meter.csv"), ["agent"])
        assert watch.beside(["run"]) == ["run"]
