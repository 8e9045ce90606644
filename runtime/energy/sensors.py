"""Which sensors of power a Linux machine has, out of what lies under /sys: RAPL counters, INA rails of a board, the battery.

The same for this machine and for a device: files are read in one go (:data:`PATTERNS`), and a :class:`Sensor` says which of them to read
again and again, and what their numbers mean.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from edgewise.runtime.energy.tegrastats import board_w, command

IDLE_S = 1.0
# By path from the root: what a file's first line is.
Tree = Mapping[str, str]
Readings = Sequence[float | None]

_ZONES, _CHIPS, _SUPPLIES = "sys/class/powercap/intel-rapl:*", "sys/class/hwmon/hwmon*", "sys/class/power_supply/*"
PATTERNS = (
    *(f"{_ZONES}/{name}" for name in ("name", "energy_uj", "max_energy_range_uj")),
    *(f"{_CHIPS}/{name}" for name in ("name", "in*_label", "in*_input", "curr*_input", "power*_input")),
    *(f"{_SUPPLIES}/{name}" for name in ("type", "status", "power_now", "voltage_now", "current_now")),
)
_INA = re.compile(r"ina(219|220|226|230|231|238|3221)")
# What a Jetson's boards call the rail that everything else hangs on.
_WHOLE_BOARD = ("VDD_IN", "POM_5V_IN", "5V_IN")
_NONE = "no RAPL counter, no INA power rail and no discharging battery that can be read under /sys"


@dataclass(frozen=True)
class Term:
    """The product of what some files hold, divided by ``per``; ``wraps_at``: the count after which a counter begins again at zero, 0 for none."""

    files: tuple[str, ...]
    per: float
    wraps_at: float = 0.0


@dataclass(frozen=True)
class Sensor:
    """Where energy comes from.

    Attributes:
        method: for the record: the sensor, and what is read.
        counts: whether it gives joules counted so far (else watts at this moment).
        terms: files to read, whose terms are added.
        lines: instead of files the words of a command that prints what ``read_lines`` understands.
        read_lines: makes a function of each line in turn: joules or watts, None for a line that says neither.
        idle_s: how long it takes to see what idleness takes.
        least_steps: how often a counter that moves in coarse steps must have moved for its difference to mean something.
    """

    method: str
    counts: bool
    terms: tuple[Term, ...] = ()
    lines: tuple[str, ...] = ()
    read_lines: Callable[[], Callable[[str], float | None]] = lambda: board_w
    idle_s: float = IDLE_S
    least_steps: int = 0

    @property
    def files(self) -> tuple[str, ...]:
        """What to read, by path from the root."""
        return tuple(file for term in self.terms for file in term.files)

    def reader(self) -> Callable[[Readings], float | None]:
        """A function of what :attr:`files` hold, in their order: joules or watts, None where one was not readable. It follows counters over their ends."""
        followed = [_Followed(term) for term in self.terms]

        def read(numbers: Readings) -> float | None:
            total, at = 0.0, 0
            for each in followed:
                value = each.value(numbers[at : (at := at + len(each.term.files))])
                if value is None:
                    return None
                total += value
            return total

        return read


class _Followed:
    """A term over time: zones begin again at different joules, so each is followed by itself."""

    def __init__(self, term: Term) -> None:
        self.term, self._last, self._turns = term, 0.0, 0

    def value(self, numbers: Readings) -> float | None:
        product = 1.0
        for number in numbers:
            if number is None:
                return None
            # Drivers differ in the sign of a current that flows out.
            product *= abs(number)
        if self.term.wraps_at:
            self._turns += product < self._last
            self._last = product
            product += self._turns * self.term.wraps_at
        return product / self.term.per


def find_sensor(tree: Tree, tegrastats: str = "") -> Sensor | str:
    """The best sensor there is, or the reason why there is none: RAPL before INA rails before tegrastats before the battery.

    Args:
        tree: what lies under :data:`PATTERNS`; files that cannot be read are missing or empty.
        tegrastats: the program's path, empty where there is none.
    """
    reasons = []
    for found in (_rapl(tree), _rails(tree), _tegrastats(tegrastats), _battery(tree)):
        if isinstance(found, Sensor):
            return found
        if found:
            reasons.append(found)
    return "; ".join(reasons) or _NONE


def number(text: str) -> float | None:
    """None for what is no number."""
    with contextlib.suppress(ValueError):
        return float(text)
    return None


def _rapl(tree: Tree) -> Sensor | str:
    """Intel's and AMD's counters: the packages, and memory where it is counted apart from them."""
    names, terms = [], []
    for zone in _folders(tree, _ZONES):
        name = tree.get(f"{zone}/name", "")
        if name.startswith("package") or name == "dram":
            names.append(name)
            most = number(tree.get(f"{zone}/max_energy_range_uj", "")) or 0.0
            terms.append(Term((f"{zone}/energy_uj",), 1e6, most))
    if not terms:
        return ""
    if _unreadable(tree, terms):
        return f"RAPL: {terms[0].files[0]} cannot be read (only root may, by default)"
    return Sensor(f"RAPL (powercap): {' + '.join(names)}", True, tuple(terms))


def _rails(tree: Tree) -> Sensor | str:
    """INA monitors: the rail of the whole board, else the sum of all."""
    rails: dict[str, Term] = {}
    for chip in _folders(tree, _CHIPS):
        if _INA.fullmatch(tree.get(f"{chip}/name", "")):
            rails |= {
                label or f"{chip.rpartition('/')[2]} {index}": term for index, label, term in _channels(tree, chip)
            }
    chosen = [label for label in _WHOLE_BOARD if label in rails][:1] or sorted(rails)
    if not chosen:
        return ""
    terms = tuple(rails[label] for label in chosen)
    if _unreadable(tree, terms):
        return f"INA rails: {', '.join(chosen)} cannot be read"
    return Sensor(f"INA power monitor (hwmon): {' + '.join(chosen)}", False, terms)


def _channels(tree: Tree, chip: str) -> list[tuple[str, str, Term]]:
    """Number, label and files of each rail: voltage (mV) and current (mA), or its power (µW)."""
    found = []
    for current in _files(tree, f"{chip}/curr*_input"):
        index = current.rpartition("/curr")[2].removesuffix("_input")
        voltage = f"{chip}/in{index}_input"
        if voltage in tree:
            found.append((index, tree.get(f"{chip}/in{index}_label", ""), Term((voltage, current), 1e6)))
    if not found:
        powers = _files(tree, f"{chip}/power*_input")
        found = [(file.rpartition("/power")[2].removesuffix("_input"), "", Term((file,), 1e6)) for file in powers]
    return found


def _tegrastats(program: str) -> Sensor | str:
    return Sensor("tegrastats, board input", False, lines=tuple(command(program))) if program else ""


def _battery(tree: Tree) -> Sensor | str:
    for supply in _folders(tree, _SUPPLIES):
        if tree.get(f"{supply}/type") != "Battery":
            continue
        name, status = supply.rpartition("/")[2], tree.get(f"{supply}/status", "")
        if status != "Discharging":
            return f"battery {name}: {status.lower() or 'no status'}, so it does not carry the load"
        power = Term((f"{supply}/power_now",), 1e6)
        term = Term((f"{supply}/voltage_now", f"{supply}/current_now"), 1e12) if _unreadable(tree, [power]) else power
        if _unreadable(tree, [term]):
            return f"battery {name}: its power cannot be read"
        return Sensor(f"battery {name} (power_supply)", False, (term,))
    return ""


def _files(tree: Tree, pattern: str) -> list[str]:
    return sorted(path for path in tree if fnmatchcase(path, pattern))


def _folders(tree: Tree, pattern: str) -> list[str]:
    """Those right there: a star of ``fnmatch`` takes slashes too."""
    depth = pattern.count("/")
    found = {path.rpartition("/")[0] for path in tree if path.count("/") == depth + 1}
    return sorted(folder for folder in found if fnmatchcase(folder, pattern))


def _unreadable(tree: Tree, terms: Sequence[Term]) -> bool:
    return any(number(tree.get(file, "")) is None for term in terms for file in term.files)
