"""Agents for other processors, built with Zig and run in qemu; and a board of aarch64 at the end of SSH, in one command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgewise.runtime.bundle import open_bundle
from edgewise.runtime.compare import parity_of_sums
from edgewise.runtime.devices.agents import agent_for
from edgewise.runtime.devices.reference import write_plain_reference

pytestmark = [pytest.mark.slow, pytest.mark.cross]

_ROOT = Path(__file__).resolve().parents[3]
_EMULATORS = {
    "x86_64-linux-musl": "qemu-x86_64-static",
    "aarch64-linux-musl": "qemu-aarch64-static",
    "arm-linux-musleabihf": "qemu-arm-static",
    "riscv64-linux-musl": "qemu-riscv64-static",
}
_LARGEST_BYTES = 1_500_000


def emulator(triple: str) -> str:
    found = shutil.which(_EMULATORS[triple])
    if not found:
        pytest.skip(f"needs {_EMULATORS[triple]}")
    return found


@pytest.mark.parametrize("triple", _EMULATORS)
def test_an_agent_is_small_static_and_computes_the_same(triple: str, native_bundle: Any, tmp_path: Path) -> None:
    agent, run = agent_for(triple), emulator(triple)
    assert agent.stat().st_size <= _LARGEST_BYTES
    bundle = open_bundle(native_bundle())
    write_plain_reference(tmp_path / "reference", *bundle.reference())
    command = [run, agent, bundle.file("model.engine"), tmp_path / "reference", "--threads", "2", "--runs", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])["result"]
    assert parity_of_sums(result["sums"][0], result["samples"]).sqnr_db > 100
    assert len(result["runs_ms"]) == 5
    cold = json.loads(subprocess.run([*command[:4], "--cold"], capture_output=True, text=True, check=True).stdout)
    assert cold["result"]["load_ms"] > 0 and cold["result"]["page_cache"].startswith(("dropped", "kept: "))
    told = subprocess.run([run, agent, "--peak", "1", "65536"], capture_output=True, text=True, check=True)
    peak = json.loads(told.stdout)["result"]
    assert peak["f32_gmacs_per_s"] > 0 and peak["int8_gmacs_per_s"] > 0 and peak["memory_gb_per_s"] > 0


def test_from_a_checkpoint_to_a_report_on_a_board(sshd: Any, power: Any, tmp_path: Path) -> None:
    devices = tmp_path / "devices.toml"
    runner = emulator("aarch64-linux-musl")
    told = {
        "address": sshd.address(), "triple": "aarch64-linux-musl", "runner": runner, "profile": "raspberrypi5",
        "sensors": power.begin("--min-time", "rails"),
    }  # fmt: skip
    devices.write_text("\n".join(["[board]", *(f'{key} = "{value}"' for key, value in told.items())]))
    command = [
        Path(sys.executable).with_name("edgewise"), "convert", "--recipe", _ROOT / "examples/digits/cnn.yaml", "--target", "cpu",
        "--device", "raspberrypi5", "--engine", "native", "--profile-on", "board", "-o", tmp_path / "out", "--json",
    ]  # fmt: skip
    done = subprocess.run(
        [*map(str, command)], cwd=_ROOT, capture_output=True, text=True, check=False, env=environment(devices)
    )
    assert done.returncode == 0, done.stderr
    (told,) = json.loads(done.stdout)["targets"]
    assert told["profile"]["reached"] == "board"
    assert told["profile"]["parity"]["passed"]
    profile = json.loads(Path(told["profile"]["file"]).read_text())
    assert profile["device"]["machine"] == "aarch64"
    assert profile["engine"]["isas"] == "generic neon neon_dotprod neon_i8mm"
    assert "s8_neon_i8mm" in profile["engine"]["kernels"]
    assert {layer["kernel"] for layer in profile["layers"]} and profile["latency_ms"]["median"] > 0
    energy = profile["energy"]
    assert energy["method"] == "INA power monitor (hwmon): VDD_IN, read on the device"
    assert 0 < energy["idle_w"] < energy["total_w"] and energy["joules_per_inference"] > 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "aarch64" in page and "VDD_IN" in page
    command[1:] = ["verify", told["bundle"], "--device", "board", "--json"]
    done = subprocess.run(
        [*map(str, command)], cwd=_ROOT, capture_output=True, text=True, check=False, env=environment(devices)
    )
    assert done.returncode == 0, done.stderr
    assert "on board" in json.loads(done.stdout)["how"]


def environment(devices: Path) -> dict[str, str]:
    return os.environ | {"EDGEWISE_DEVICES": str(devices), "NO_COLOR": "1"}
