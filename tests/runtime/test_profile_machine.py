"""What is read about the machine: from trees of files as different systems have them, and from this one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from edgewise.runtime.profile import machine

ARM = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n"
X86 = "processor\t: 0\nmodel name\t: Example CPU @ 3.00GHz\ncpu MHz\t\t: 2900.5\n\nprocessor\t: 1\nmodel name\t: Example CPU\ncpu MHz\t\t: 3100.5\n"


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_x86(tmp_path):
    root = tree(
        tmp_path,
        {
            "proc/cpuinfo": X86,
            "proc/meminfo": "MemTotal:       16384 kB\n",
            "etc/os-release": 'PRETTY_NAME="Debian 13"\n',
        },
    )
    described = machine.describe_machine(root)
    assert described["cpu"] == "Example CPU @ 3.00GHz"
    assert described["memory_bytes"] == 16384 * 1024
    assert described["board"] is None
    assert described["cores"] == os.cpu_count()
    assert machine.describe_system(root).startswith("Debian 13, ")
    assert machine.glance(root).clock_mhz == pytest.approx(3000.5)


@pytest.mark.skipif(sys.platform == "darwin", reason="asks the system instead")
def test_arm_board(tmp_path):
    root = tree(tmp_path, {"proc/cpuinfo": ARM, "proc/device-tree/model": "Raspberry Pi 5 Model B\0"})
    described = machine.describe_machine(root)
    assert described["cpu"].endswith("part 0xd0b")
    assert described["board"] == "Raspberry Pi 5 Model B"


def test_clocks_governors_and_throttling(tmp_path):
    files = {}
    for core, (clock, governor, throttles) in enumerate(
        [("1800000", "ondemand", "3"), ("2200000", "performance", "4")]
    ):
        cpu = f"sys/devices/system/cpu/cpu{core}"
        files |= {
            f"{cpu}/cpufreq/scaling_cur_freq": clock,
            f"{cpu}/cpufreq/scaling_governor": governor + "\n",
            f"{cpu}/cpufreq/cpuinfo_min_freq": "600000",
            f"{cpu}/cpufreq/cpuinfo_max_freq": "2400000",
            f"{cpu}/thermal_throttle/core_throttle_count": throttles,
        }
    root = tree(
        tmp_path,
        files | {"sys/devices/system/cpu/cpufreq/nothing": "x", "proc/stat": "cpu  100 0 100 700 100 0 0 0 50 0\n"},
    )
    assert machine.governor(root) == "ondemand, performance"
    assert machine.clock_limits_mhz(root) == {"min_mhz": 600, "max_mhz": 2400}
    ticks = os.sysconf("SC_CLK_TCK")
    seen = machine.glance(root)
    assert seen == machine.Glance(
        2000.0, 7, pytest.approx(200 / ticks), pytest.approx(1000 / ticks), None, seen.pace_us
    )
    assert seen.pace_us > 0


@pytest.mark.parametrize(
    "content", [None, "", "\0\xff", "not a number", "cpu  a b c\nVmHWM: much\nPRETTY_NAME=\ncpu MHz : fast\n"]
)
def test_what_cannot_be_read_is_none(tmp_path, content):
    names = (
        "proc/cpuinfo", "proc/stat", "proc/self/status", "proc/meminfo", "etc/os-release",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count",
        "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq",
    )  # fmt: skip
    if content is not None:
        tree(tmp_path, dict.fromkeys(names, content))
    seen = machine.glance(tmp_path)
    assert seen == machine.Glance(None, None, None, None, None, seen.pace_us)
    assert machine.clock_limits_mhz(tmp_path) == {"min_mhz": None, "max_mhz": None}
    assert machine.governor(tmp_path) is None
    assert machine.describe_machine(tmp_path)["cpu"]
    assert machine.describe_system(tmp_path)


def test_this_machine():
    described = machine.describe_machine()
    assert described["cpu"]
    assert described["cores_available"] >= 1
    assert described["memory_bytes"] > 1 << 20
    peak = machine.peak_memory_bytes()
    held = bytearray(64 << 20)
    held[::4096] = b"x" * len(held[::4096])
    assert machine.peak_memory_bytes() >= peak
    assert machine.peak_memory_bytes() > 64 << 20
