"""Energy: sensors as they lie under /sys, recorded outputs, and the arithmetic."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest

from edgewise.runtime.devices import Address, remote
from edgewise.runtime.energy import Account, Source, charge, energy_of, find_source, read_meter
from edgewise.runtime.energy.account import Sample
from edgewise.runtime.energy.tegrastats import TegrastatsReader, board_w, rails_w
from edgewise.runtime.errors import RunError
from edgewise.runtime.profile import local, profile
from edgewise.runtime.progress import silent

# One line each as NVIDIA's programs print them: JetPack 5 on an Orin, JetPack 4 on a Xavier NX and a Nano.
_ORIN = (
    "11-15-2022 09:19:24 RAM 2786/7471MB (lfb 1x4MB) SWAP 0/3735MB (cached 0MB) CPU [1%@729,0%@729,off,off] EMC_FREQ 0%@2133 "
    "GR3D_FREQ 0%@[305] CPU@47.9C tboard@37C SOC2@46.5C tj@48.1C VDD_IN 4920mW/4893mW VDD_CPU_GPU_CV 482mW/481mW VDD_SOC 1408mW/1408mW"
)
_NX = (
    "RAM 1903/7764MB (lfb 1103x4MB) SWAP 0/3882MB (cached 0MB) CPU [3%@1190,off] EMC_FREQ 0% GR3D_FREQ 0% AO@37.5C GPU@37C "
    "PMIC@50C VDD_IN 3184/3205 VDD_CPU_GPU_CV 409/430 VDD_SOC 980/980"
)
_NANO = "RAM 870/3956MB (lfb 561x4MB) IRAM 0/252kB(lfb 252kB) CPU [5%@102] PLL@25.5C PMIC@100C POM_5V_IN 1608/1608 POM_5V_GPU 0/0 POM_5V_CPU 160/160"


# As Android's BatteryService prints it.
_DUMPSYS = """\
Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Dock powered: false
  Max charging current: 500000
  Max charging voltage: 5000000
  Charge counter: 3254000
  status: 2
  health: 2
  present: true
  level: 84
  scale: 100
  voltage: 4158
  temperature: 284
  technology: Li-ion
"""


def put(root: Path, **files: Any) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def rapl(root: Path, zone: str, name: str, energy: int, most: int = 262_143_328_850) -> Path:
    folder = root / "sys/class/powercap" / zone
    put(folder, name=name, energy_uj=energy, max_energy_range_uj=most)
    return folder / "energy_uj"


def test_rapl_adds_packages_and_memory_and_leaves_out_what_they_contain(tmp_path: Path) -> None:
    rapl(tmp_path, "intel-rapl:0", "package-0", 3_000_000)
    rapl(tmp_path, "intel-rapl:0:0", "core", 2_000_000)
    rapl(tmp_path, "intel-rapl:0:1", "dram", 500_000)
    rapl(tmp_path, "intel-rapl:1", "psys", 9_000_000)
    source = find_source(tmp_path)
    assert isinstance(source, Source)
    assert (source.counts, source.read()) == (True, 3.5)
    assert "package-0 + dram" in source.method


def test_a_rapl_counter_that_begins_again_goes_on(tmp_path: Path) -> None:
    file = rapl(tmp_path, "intel-rapl:0", "package-0", 90_000_000, most=100_000_000)
    source = find_source(tmp_path)
    assert isinstance(source, Source)
    assert source.read() == 90.0
    file.write_text("5000000\n")
    assert source.read() == 105.0
    file.write_text("7000000\n")
    assert source.read() == 107.0


def test_a_counter_that_may_not_be_read_is_a_reason_and_the_next_sensor_is_tried(tmp_path: Path) -> None:
    rapl(tmp_path, "intel-rapl:0", "package-0", 1).write_text("")
    reason = find_source(tmp_path)
    assert isinstance(reason, str) and "energy_uj cannot be read" in reason
    put(tmp_path / "sys/class/power_supply/BAT0", type="Battery", status="Discharging", power_now=7_500_000)
    source = find_source(tmp_path)
    assert isinstance(source, Source)
    assert (source.counts, source.read()) == (False, 7.5)


def test_the_input_rail_of_a_jetson_is_the_whole_board(tmp_path: Path) -> None:
    chip = tmp_path / "sys/class/hwmon/hwmon3"
    put(
        chip, name="ina3221", in1_label="VDD_IN", in1_input=5032, curr1_input=984, in2_label="VDD_CPU_GPU_CV", in2_input=5024,
        curr2_input=160, in7_label="sum of shunt voltages", in7_input=200,
    )  # fmt: skip
    put(tmp_path / "sys/class/hwmon/hwmon0", name="coretemp", curr1_input=1, in1_input=1)
    source = find_source(tmp_path)
    assert isinstance(source, Source)
    assert source.read() == pytest.approx(5.032 * 0.984)
    assert source.method.endswith("VDD_IN")


def test_rails_without_a_whole_are_added(tmp_path: Path) -> None:
    put(tmp_path / "sys/class/hwmon/hwmon0", name="ina226", power1_input=1_250_000)
    put(tmp_path / "sys/class/hwmon/hwmon1", name="ina226", power1_input=750_000)
    source = find_source(tmp_path)
    assert isinstance(source, Source)
    assert source.read() == 2.0


@pytest.mark.parametrize("current", [1_000_000, -1_000_000])
def test_a_phones_battery_whatever_the_sign_of_its_current(tmp_path: Path, current: int) -> None:
    put(
        tmp_path / "sys/class/power_supply/battery", type="Battery", status="Discharging", voltage_now=3_850_000,
        current_now=current,
    )  # fmt: skip
    source = find_source(tmp_path)
    assert isinstance(source, Source)
    assert source.read() == pytest.approx(3.85)


def test_a_battery_that_charges_tells_nothing(tmp_path: Path) -> None:
    put(tmp_path / "sys/class/power_supply/BAT0", type="Battery", status="Charging", power_now=7_500_000)
    assert find_source(tmp_path) == "battery BAT0: charging, so it does not carry the load"
    assert "no RAPL counter" in str(find_source(tmp_path / "nothing"))


def test_tegrastats_of_three_generations() -> None:
    assert rails_w(_ORIN) == {"VDD_IN": 4.92, "VDD_CPU_GPU_CV": 0.482, "VDD_SOC": 1.408}
    assert [board_w(line) for line in (_ORIN, _NX, _NANO)] == [4.92, 3.184, 1.608]
    assert rails_w("RAM 870/3956MB CPU [5%@102]") == {}
    assert board_w("RAM 870/3956MB CPU [5%@102]") is None


def test_the_charge_counter_that_android_tells() -> None:
    unplugged = _DUMPSYS.replace("USB powered: true", "USB powered: false").replace("status: 2", "status: 3")
    assert charge.reason_against(_DUMPSYS) == "battery: charging, powered by USB, so it does not carry the load"
    assert charge.reason_against(unplugged.replace("status: 3", "status: 5")).startswith("battery: full, so")
    assert charge.reason_against("Can't find service: battery") == "dumpsys battery: no charge counter"
    assert charge.reason_against(unplugged) == ""
    read = charge.joules()
    later = unplugged.replace("3254000", "3253000").replace("voltage: 4158", "voltage: 4000")
    told = [joules for line in (unplugged + later + later).splitlines() if (joules := read(line)) is not None]
    assert told == pytest.approx([0.0, 14.4, 14.4])  # 1 mAh at 4 V


@pytest.mark.parametrize(
    ("text", "watts"),
    [
        ("time,power_w\n10,2.5\n11,2.5\n", 2.5),
        ("Timestamp,Voltage_V,Current_mA\n2026-01-01T00:00:00+00:00,5.0,400\n", 2.0),
        ("unix_s,power_mw\n5,1500\n", 1.5),
    ],
)
def test_a_meters_record(tmp_path: Path, text: str, watts: float) -> None:
    (tmp_path / "meter.csv").write_text(text)
    samples = read_meter(tmp_path / "meter.csv")
    assert samples[0].value == pytest.approx(watts)
    if "2026" in text:
        assert samples[0].at_s == 1767225600


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("power_w\n1\n", "the columns power_w"),
        ("time,colour\n1,2\n", "the columns time, colour"),
        ("time,power_w\n1,much\n", "line 2"),
        ("time,power_w\n1,nan\n", "nan"),
        ("time,power_w\n2026-01-01T00:00:00,1\n", "without a zone"),
        ("time,power_w\n1\n", "line 2"),
        ("", "the columns none"),
    ],
)
def test_a_bad_record_is_refused(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "meter.csv").write_text(text)
    with pytest.raises(RunError) as caught:
        read_meter(tmp_path / "meter.csv")
    assert found in str(caught.value)
    with pytest.raises(RunError, match="No such file"):
        read_meter(tmp_path / "none.csv")


def test_idleness_is_taken_off() -> None:
    watts = [Sample(at / 10, 2.0 if at < 10 else 5.0) for at in range(41)]
    told = energy_of(watts, (1.0, 4.0), (0.0, 0.9), 100, counts=False, method="m")
    assert isinstance(told, dict)
    assert told["joules_per_inference"] == pytest.approx(3.0 * 3.0 / 100)
    assert (told["mean_w"], told["total_w"], told["idle_w"]) == (
        pytest.approx(3.0),
        pytest.approx(5.0),
        pytest.approx(2.0),
    )
    assert told["sampling_hz"] == pytest.approx(10)
    joules = [Sample(at / 10, 0.2 * min(at, 10) + 0.5 * max(0, at - 10)) for at in range(41)]
    counted = energy_of(joules, (1.0, 4.0), (0.0, 1.0), 100, counts=True, method="m")
    assert isinstance(counted, dict)
    assert counted["joules_per_inference"] == pytest.approx(0.09)


def test_what_cannot_be_said_is_a_reason_and_never_zero() -> None:
    flat = [Sample(at / 10, 2.0) for at in range(41)]
    assert "other work hides" in str(energy_of(flat, (1.0, 4.0), (0.0, 0.9), 1, counts=False, method="m"))
    assert "fewer than 3 readings during the runs (--duration makes them last)" in str(
        energy_of(flat, (9.0, 9.5), (0.0, 0.9), 1, counts=False, method="m")
    )
    assert "idle time" in str(energy_of(flat, (1.0, 4.0), (0.0, 0.1), 1, counts=False, method="m"))


@pytest.mark.slow
def test_a_profile_tells_its_energy(make_bundle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begin, busy, send_off = time.monotonic(), [math.inf], local.send_off

    def noted(*asked: Any) -> dict[str, Any]:
        busy[0] = time.monotonic()
        return send_off(*asked)

    def joules() -> float:
        now = time.monotonic()
        return 2.0 * (now - begin) + 4.0 * max(0.0, now - busy[0])  # 2 W, and 6 W once the worker is at it

    monkeypatch.setattr(local, "send_off", noted)
    monkeypatch.setattr(local, "find_source", lambda: Source("pretended", True, joules))
    told = profile(make_bundle(), threads=1, duration_s=0.5)["energy"]
    assert told["total_w"] == pytest.approx(6.0, rel=0.01)
    assert told["idle_w"] == pytest.approx(2.0, rel=0.01)
    assert told["joules_per_inference"] == pytest.approx(4.0 * told["window_s"] / told["inferences"], rel=0.01)
    monkeypatch.setattr(local, "find_source", lambda: "nothing here")
    told = profile(make_bundle("other"), threads=1, runs=3)
    assert (told["energy"], told["energy_reason"]) == (None, "nothing here")


def test_the_account_ends_its_thread() -> None:
    account = Account(Source("pretended", False, lambda: 1.0))
    with account:
        pass
    assert len(account.samples) >= 10
    assert not account._thread.is_alive()


def test_tegrastats_itself_is_started_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "tegrastats"
    program.write_text(f"#!/bin/sh\n[ \"$1\" = --interval ] || exit 1\nwhile :; do echo '{_ORIN}'; sleep 0.02; done\n")
    program.chmod(0o755)
    reader = TegrastatsReader(str(program))
    with Account(Source("tegrastats", False, reader.watts, reader.close)) as account:
        pass
    assert {sample.value for sample in account.samples} == {4.92}
    assert reader._process is not None and reader._process.poll() is not None


def test_a_meter_beside_a_remote_device(tmp_path: Path) -> None:
    lines = [f"{1000 + at / 20},{2.0 if at < 40 else 6.0}" for at in range(200)]
    (tmp_path / "meter.csv").write_text("\n".join(["time,power_w", *lines]))
    watch = remote._Watch(silent)
    watch.idle = (1000.5, 1001.5)
    address = Address("pi", "ssh", meter=str(tmp_path / "meter.csv"))
    measured = {"wall_s": 5.0, "count": 1000}
    assert "did not say" in str(remote._metered(address, watch, measured))
    watch.began = 1003.0
    told = remote._metered(address, watch, measured)
    assert isinstance(told, dict)
    assert told["joules_per_inference"] == pytest.approx(4.0 * 5.0 / 1000)
