"""The adb transport: the real client and server, and a device whose side of the protocol is in adbd.py."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgewise.runtime.devices import DeviceError, Shell, open_device, parse_address
from edgewise.runtime.devices.remote import profile_remote
from edgewise.runtime.devices.runners import Order
from edgewise.runtime.storage import sha256_of

pytestmark = pytest.mark.slow


@pytest.fixture
def device(phone: Any, tmp_path: Path) -> Iterator[Shell]:
    address = parse_address(f"adb:127.0.0.1:{phone.port}")
    with open_device(replace(address, folder=str(tmp_path / "device"))) as opened:
        yield opened


def test_commands_files_and_statuses(device: Shell, tmp_path: Path) -> None:
    finished = device.run("echo out; echo err >&2; exit 3")
    assert (finished.status, finished.stdout, finished.stderr.strip()) == (3, b"out\n", "err")
    lines: list[str] = []
    device.run("echo one; echo two", on_line=lines.append)
    assert lines == ["one", "two"]
    file = tmp_path / "engine"
    file.write_bytes(bytes(range(256)) * 3000)
    remote = device.push(file)
    assert remote == str(tmp_path / "device" / "store" / sha256_of(file))
    assert device.push(file) == remote
    device.pull(remote, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == file.read_bytes()


def test_nothing_is_left_when_the_time_is_over_or_the_phone_is_gone(device: Shell, phone: Any) -> None:
    def left() -> bool:
        return subprocess.run(["pgrep", "-f", "sleep 98[7]6"], capture_output=True, check=False).returncode == 0

    def wait() -> None:
        for _ in range(100):
            if not left():
                return
            threading.Event().wait(0.05)
        raise AssertionError("still running")

    with pytest.raises(DeviceError, match="the device takes too long"):
        device.run(["sleep", "9876"], timeout_s=1)
    wait()
    threading.Timer(1, phone.vanish).start()
    with pytest.raises(DeviceError, match="the device is gone"):
        device.run(["sleep", "9876"])
    wait()


def test_a_profile_over_adb(
    phone: Any, agents: Path, native_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWISE_AGENTS", str(agents))
    address = replace(parse_address(f"adb:127.0.0.1:{phone.port}"), folder=str(tmp_path / "device"))
    result, parities = profile_remote(native_bundle(), address, Order(runs=10, warmup=1))
    assert len(result["latency_ms"]["samples"]) == 10
    assert parities[0].sqnr_db > 100


@pytest.mark.parametrize(
    ("kind", "why"), [("onnxruntime", "Android has none"), ("tensorrt", "neither for Android"), ("coreml", "Apple's")]
)
def test_what_no_phone_runs_is_refused_before_it_is_asked(kind: str, why: str, native_bundle: Any) -> None:
    with pytest.raises(DeviceError, match="a phone cannot run this bundle over adb") as caught:
        profile_remote(native_bundle(kind=kind), parse_address("adb:NOSUCHSERIAL"), Order())
    assert f"'{kind}'" in caught.value.found and why in caught.value.found
    assert "libedgewise" in caught.value.expected and "--engine native" in caught.value.fix
    assert "adb:NOSUCHSERIAL" in caught.value.where


def test_a_phone_that_is_not_there_is_said_so(phone: Any) -> None:
    with pytest.raises(DeviceError, match="cannot reach the device") as caught:
        open_device(parse_address("adb:NOSUCHSERIAL"))
    assert "NOSUCHSERIAL" in caught.value.found


def test_without_adb_the_error_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="no program adb"):
        open_device(parse_address("adb:1"))
