"""A device that takes power: a folder with ``sys``, whose sensors say 4 W more than the idle 2 W while a process is at work."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

IDLE_W, BUSY_W = 2.0, 6.0
Tell = Callable[[Path, float, float], None]
_WRAPS_AT_UJ = 3_000_000  # the counter begins again several times while a test looks


def at_work(sign: str) -> bool:
    """Whether a process runs that has ``sign`` among its words: not the one that watches it, nor a shell in whose script it stands, nor what
    tests beside this one let run.
    """
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (place / "cmdline").read_bytes().split(b"\0")
            if sign.encode() in words and b"--watch" not in words and comes_from_here(place.name):
                return True
    return False


def comes_from_here(process: str) -> bool:
    """Whether one of its forebears is this process."""
    while process not in ("0", "1"):
        if process == str(os.getpid()):
            return True
        process = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1]
    return False


def live(root: Path, sign: str, tell: Tell, over: threading.Event) -> None:
    """Let ``tell(root, watts, joules)`` write what the sensor says, until it is over."""
    joules, last = 100.0, time.monotonic()
    while not over.wait(0.04):
        watts = BUSY_W if at_work(sign) else IDLE_W
        now = time.monotonic()
        joules, last = joules + watts * (now - last), now
        tell(root, watts, joules)


def put(file: Path, content: object) -> None:
    """At once, so that nobody reads half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}")
    draft.write_text(f"{content}\n")
    draft.replace(file)


def rapl(root: Path, watts: float, joules: float) -> None:
    """A counter of microjoules."""
    zone = root / "sys/class/powercap/intel-rapl:0"
    if not zone.exists():
        put(zone / "name", "package-0")
        put(zone / "max_energy_range_uj", _WRAPS_AT_UJ)
    put(zone / "energy_uj", int(joules * 1e6) % _WRAPS_AT_UJ)


def rails(root: Path, watts: float, joules: float) -> None:
    """A Jetson's input rail."""
    chip = root / "sys/class/hwmon/hwmon3"
    if not chip.exists():
        put(chip / "name", "ina3221")
        put(chip / "in1_label", "VDD_IN")
        put(chip / "in1_input", 5000)
    put(chip / "curr1_input", int(watts * 200))


def battery(root: Path, watts: float, joules: float) -> None:
    """A phone's, with a current that flows out."""
    supply = root / "sys/class/power_supply/battery"
    if not supply.exists():
        put(supply / "type", "Battery")
        put(supply / "status", "Discharging")
        put(supply / "voltage_now", 4_000_000)
    put(supply / "current_now", -int(watts * 250_000))


def charge(root: Path, watts: float, joules: float) -> None:
    """What a stand-in for dumpsys prints, in steps of 10 µAh at 4 V."""
    counter = 3_000_000 - int(joules / 4 / 3.6e-3 / 10) * 10
    told = f"  USB powered: false\n  Max charging voltage: 5000000\n  Charge counter: {counter}\n  status: 3\n  voltage: 4000"
    put(root / "battery", told)


def milliwatts(root: Path, watts: float, joules: float) -> None:
    """What a stand-in for tegrastats prints."""
    put(root / "milliwatts", int(watts * 1000))
