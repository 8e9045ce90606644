"""The record of an external power meter: a CSV file with a time and a power (or voltage and current) per line."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from edgewise.runtime.energy.account import Sample
from edgewise.runtime.errors import RunError

_TIMES = ("time", "timestamp", "time_s", "unix_s")
_POWERS = {"power_w": 1.0, "power_mw": 1e-3, "watts": 1.0, "w": 1.0}
_VOLTS = {"voltage_v": 1.0, "voltage_mv": 1e-3, "volts": 1.0, "v": 1.0}
_AMPERES = {"current_a": 1.0, "current_ma": 1e-3, "amps": 1.0, "a": 1.0}


def read_meter(file: Path) -> list[Sample]:
    """Watts by seconds since 1970, in the order of time.

    The head names the columns: a time (``time``, ``timestamp``: seconds since 1970, or ISO 8601 with a zone), and ``power_w``,
    ``power_mw``, or a voltage and a current (``voltage_v``, ``current_a``, ``…_mv``, ``…_ma``).

    Raises:
        RunError: no such columns, or a line that is no numbers.
    """
    try:
        with file.open(encoding="utf-8", newline="") as source:
            reader = csv.DictReader(source)
            names = {name.strip().lower(): name for name in reader.fieldnames or ()}
            time_of, power_of = _time(names, file), _power(names, file)
            samples = []
            for row in reader:
                samples.append(_sample(row, time_of, power_of, f"{file}, line {reader.line_num}"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _bad(str(file), str(error), "a CSV file") from error
    return sorted(samples, key=lambda sample: sample.at_s)


Row = Mapping[str, str]


def _sample(row: Row, time_of: Callable[[Row], float], power_of: Callable[[Row], float], where: str) -> Sample:
    try:
        sample = Sample(time_of(row), power_of(row))
    except (ValueError, TypeError) as error:
        raise _bad(where, str(error), "numbers in every column") from error
    if not math.isfinite(sample.at_s) or not math.isfinite(sample.value):
        raise _bad(where, f"{sample.at_s}, {sample.value}", "finite numbers")
    return sample


def _time(names: Mapping[str, str], file: Path) -> Callable[[Row], float]:
    column = next((names[name] for name in _TIMES if name in names), None)
    if column is None:
        raise _bad(str(file), f"the columns {', '.join(names) or 'none'}", f"one of {', '.join(_TIMES)}")

    def read(row: Row) -> float:
        text = row[column].strip()
        try:
            return float(text)
        except ValueError:
            moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError(f"{text}: a time without a zone")
        return moment.timestamp()

    return read


def _power(names: Mapping[str, str], file: Path) -> Callable[[Row], float]:
    def column(known: Mapping[str, float]) -> tuple[str, float] | None:
        return next(((names[name], scale) for name, scale in known.items() if name in names), None)

    if power := column(_POWERS):
        return lambda row: float(row[power[0]]) * power[1]
    volts, amperes = column(_VOLTS), column(_AMPERES)
    if volts is None or amperes is None:
        raise _bad(str(file), f"the columns {', '.join(names) or 'none'}", "power_w, or voltage_v and current_a")
    return lambda row: float(row[volts[0]]) * volts[1] * float(row[amperes[0]]) * amperes[1]


def _bad(where: str, found: str, expected: str) -> RunError:
    return RunError(
        "cannot read the power meter's record", where=where, found=found, expected=expected,
        fix="Export it as docs/devices.md describes",
    )  # fmt: skip
