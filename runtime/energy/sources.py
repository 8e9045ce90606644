"""Sensors of a Linux machine: RAPL counters, INA rails of a board, the battery. Each gives joules, or watts at a moment."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgewise.runtime.energy.tegrastats import TegrastatsReader

_ROOT = Path("/")
_INA = re.compile(r"ina(219|220|226|230|231|238|3221)")
# What a Jetson's boards call the rail that everything else hangs on.
_WHOLE_BOARD = ("VDD_IN", "POM_5V_IN", "5V_IN")
_NONE = "no RAPL counter, no INA power rail and no discharging battery under /sys"


def _nothing() -> None:
    """Most sensors are files, which need no closing."""


@dataclass(frozen=True)
class Source:
    """Where energy comes from.

    Attributes:
        method: for the record: the sensor, and what is read.
        counts: whether ``read`` gives joules counted so far (else watts at this moment).
        read: None where the sensor does not answer.
        close: ends what reading needs.
    """

    method: str
    counts: bool
    read: Callable[[], float | None]
    close: Callable[[], None] = _nothing


def find_source(root: Path = _ROOT) -> Source | str:
    """The best sensor there is, or the reason why there is none: RAPL before INA rails before tegrastats before the battery."""
    reasons = []
    for find in (_rapl, _rails, _tegrastats, _battery):
        found = find(root)
        if isinstance(found, Source):
            return found
        if found:
            reasons.append(found)
    return "; ".join(reasons) or _NONE


def _rapl(root: Path) -> Source | str:
    """Intel's and AMD's counters: the packages, and memory where it is counted apart from them."""
    zones = []
    for zone in sorted((root / "sys/class/powercap").glob("intel-rapl:*")):
        name = _text(zone / "name")
        if name.startswith("package") or name == "dram":
            zones.append((name, zone / "energy_uj", _number(zone / "max_energy_range_uj")))
    if not zones:
        return ""
    if any(_number(file) is None for _, file, _ in zones):
        return f"RAPL: {zones[0][1].relative_to(root)} cannot be read (only root may, by default)"
    # Zones begin again at different joules, so each is followed by itself.
    counters = [_Unwrapped(file, most or 0.0) for _, file, most in zones]

    def read() -> float | None:
        values = [counter.joules() for counter in counters]
        return None if None in values else sum(value for value in values if value is not None)

    return Source(f"RAPL (powercap): {' + '.join(name for name, _, _ in zones)}", True, read)


class _Unwrapped:
    """A counter of microjoules that begins again at zero after ``most``."""

    def __init__(self, file: Path, most: float) -> None:
        self._file, self._most, self._last, self._turns = file, most, 0.0, 0

    def joules(self) -> float | None:
        now = _number(self._file)
        if now is None:
            return None
        self._turns += now < self._last
        self._last = now
        return (now + self._turns * self._most) / 1e6


def _rails(root: Path) -> Source | str:
    """INA monitors: the rail of the whole board, else the sum of all."""
    rails: dict[str, tuple[Path, ...]] = {}
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if _INA.fullmatch(_text(chip / "name")):
            rails |= {label or f"{chip.name} {index}": files for index, label, files in _channels(chip)}
    whole = [label for label in _WHOLE_BOARD if label in rails]
    chosen = whole[:1] or sorted(rails)
    if not chosen:
        return ""

    def read() -> float | None:
        values = [_watts(rails[label]) for label in chosen]
        return None if None in values else sum(value for value in values if value is not None)

    if read() is None:
        return f"INA rails: {', '.join(chosen)} cannot be read"
    return Source(f"INA power monitor (hwmon): {' + '.join(chosen)}", False, read)


def _channels(chip: Path) -> list[tuple[str, str, tuple[Path, ...]]]:
    """Number, label and files of each rail: its power, or its voltage and current."""
    found: list[tuple[str, str, tuple[Path, ...]]] = []
    for current in sorted(chip.glob("curr*_input")):
        index = current.name.removeprefix("curr").removesuffix("_input")
        voltage = chip / f"in{index}_input"
        if voltage.is_file():
            found.append((index, _text(chip / f"in{index}_label"), (voltage, current)))
    if not found:
        found = [(file.name[5:-6], "", (file,)) for file in sorted(chip.glob("power*_input"))]
    return found


def _watts(files: tuple[Path, ...]) -> float | None:
    """From microwatts, or from millivolts and milliamperes."""
    values = [_number(file) for file in files]
    if values[0] is None or values[-1] is None:
        return None
    return values[0] / 1e6 if len(values) == 1 else values[0] * values[-1] / 1e6


def _tegrastats(root: Path) -> Source | str:
    program = shutil.which("tegrastats") if root == _ROOT else None
    if program is None:
        return ""
    reader = TegrastatsReader(program)
    return Source("tegrastats, board input", False, reader.watts, reader.close)


def _battery(root: Path) -> Source | str:
    for supply in sorted((root / "sys/class/power_supply").glob("*")):
        if _text(supply / "type") != "Battery":
            continue
        if _text(supply / "status") != "Discharging":
            return f"battery {supply.name}: {_text(supply / 'status').lower() or 'no status'}, so it does not carry the load"

        def read(supply: Path = supply) -> float | None:
            power = _number(supply / "power_now")
            if power is not None:
                return abs(power) / 1e6
            volts, amperes = _number(supply / "voltage_now"), _number(supply / "current_now")
            # Drivers differ in the sign of a current that flows out.
            return None if volts is None or amperes is None else abs(volts * amperes) / 1e12

        if read() is None:
            return f"battery {supply.name}: its power cannot be read"
        return Source(f"battery {supply.name} (power_supply)", False, read)
    return ""


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(file: Path) -> float | None:
    with contextlib.suppress(ValueError):
        return float(_text(file))
    return None
