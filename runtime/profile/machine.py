"""What can be read about this machine: processor, system, clocks, governor, and who else is busy. Linux tells most."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

_ROOT = Path("/")
_CPUS = "sys/devices/system/cpu"
_PACES, _STEPS = 3, 2000


def describe_machine(root: Path = _ROOT) -> dict[str, Any]:
    """Processor, cores, memory in bytes; None where this system does not tell."""
    return {
        "cpu": _cpu_model(root),
        "machine": platform.machine(),
        "board": _read(root / "proc/device-tree/model") or None,
        "cores": os.cpu_count(),
        "cores_available": _available_cores(),
        "memory_bytes": _memory_bytes(root),
    }


def describe_system(root: Path = _ROOT) -> str:
    """Name and version of the operating system and its kernel."""
    release = re.search(r'^PRETTY_NAME="?([^"\n]+)', _read(root / "etc/os-release"), re.MULTILINE)
    return f"{release[1]}, {platform.platform()}" if release else platform.platform()


def governor(root: Path = _ROOT) -> str | None:
    """The frequency governor; several, parted by commas, where cores differ."""
    found = {_read(file) for file in _cpu_files(root, "cpufreq/scaling_governor")}
    return ", ".join(sorted(found - {""})) or None


def clock_limits_mhz(root: Path = _ROOT) -> dict[str, float | None]:
    """Lowest and highest clock of any core."""
    lows = _numbers(_cpu_files(root, "cpufreq/cpuinfo_min_freq"))
    highs = _numbers(_cpu_files(root, "cpufreq/cpuinfo_max_freq"))
    return {"min_mhz": min(lows) / 1000 if lows else None, "max_mhz": max(highs) / 1000 if highs else None}


@dataclass(frozen=True)
class Glance:
    """The machine at one moment; None where it cannot be read.

    Attributes:
        clock_mhz: mean clock of the cores.
        throttles: how often the processor has cut its clock for heat, since it was started.
        busy_s: time that all cores together have worked, for everybody.
        total_s: that, and the time that they idled.
        temperature_c: of the hottest thermal zone.
        pace_us: what a fixed piece of work takes just now; another program's thread in the same core, which a virtual machine does not see, shows here.
    """

    clock_mhz: float | None
    throttles: int | None
    busy_s: float | None
    total_s: float | None
    temperature_c: float | None = None
    pace_us: float | None = None


def glance(root: Path = _ROOT) -> Glance:
    """Look now."""
    throttles = _numbers(_cpu_files(root, "thermal_throttle/core_throttle_count"))
    busy, total = _cpu_seconds(root)
    heat = _numbers(sorted((root / "sys/class/thermal").glob("thermal_zone*/temp")))
    counted = int(sum(throttles)) if throttles else None
    return Glance(_clock_mhz(root), counted, busy, total, max(heat) / 1000 if heat else None, _pace_us())


def peak_memory_bytes(root: Path = _ROOT) -> int | None:
    """The most memory this process has held so far."""
    # Not getrusage on Linux: there it starts from what the parent held when it forked.
    if match := re.search(r"^VmHWM:\s+(\d+) kB", _read(root / "proc/self/status"), re.MULTILINE):
        return int(match[1]) * 1024
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def _pace_us() -> float:
    """The shortest of three: one alone may have been interrupted."""
    took = []
    for _ in range(_PACES):
        start = time.perf_counter_ns()
        for _ in range(_STEPS):
            pass
        took.append(time.perf_counter_ns() - start)
    return min(took) / 1000


def _cpu_model(root: Path) -> str:
    text = _read(root / "proc/cpuinfo")
    if match := re.search(r"^(?:model name|Hardware|Processor)\s*:\s*(.+)$", text, re.MULTILINE):
        return match[1].strip()
    if sys.platform == "darwin":
        told = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
        return told.stdout.strip() or platform.processor()
    part = re.search(r"^CPU part\s*:\s*(\S+)", text, re.MULTILINE)
    return f"{platform.machine()}, part {part[1]}" if part else platform.processor() or platform.machine()


def _available_cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory_bytes(root: Path) -> int | None:
    if match := re.search(r"^MemTotal:\s+(\d+) kB", _read(root / "proc/meminfo"), re.MULTILINE):
        return int(match[1]) * 1024
    names = getattr(os, "sysconf_names", {})
    if {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= set(names):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _clock_mhz(root: Path) -> float | None:
    if clocks := _numbers(_cpu_files(root, "cpufreq/scaling_cur_freq")):
        return mean(clocks) / 1000
    clocks = [
        float(text) for text in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", _read(root / "proc/cpuinfo"), re.MULTILINE)
    ]
    return mean(clocks) if clocks else None


def _cpu_seconds(root: Path) -> tuple[float | None, float | None]:
    match = re.search(r"^cpu +([\d ]+)$", _read(root / "proc/stat"), re.MULTILINE)
    if not match:
        return None, None
    # user nice system idle iowait irq softirq steal; what follows is counted in user already.
    ticks = [int(text) for text in match[1].split()[:8]]
    idle, total = sum(ticks[3:5]), sum(ticks)
    per_second = os.sysconf("SC_CLK_TCK")
    return (total - idle) / per_second, total / per_second


def _cpu_files(root: Path, name: str) -> list[Path]:
    return sorted((root / _CPUS).glob(f"cpu[0-9]*/{name}"))


def _numbers(files: list[Path]) -> list[float]:
    found = []
    for file in files:
        with contextlib.suppress(ValueError):
            found.append(float(_read(file)))
    return found


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""
