"""This machine's own sensor, read by this process: joules, or watts at a moment."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgewise.runtime.energy.sensors import PATTERNS, Sensor, find_sensor, number
from edgewise.runtime.energy.tegrastats import PROGRAM, TegrastatsReader

_ROOT = Path("/")


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
    """The best sensor of this machine, or the reason why there is none (:func:`~edgewise.runtime.energy.sensors.find_sensor`).

    ``root``: the folder that holds ``sys``.
    """
    tree = {str(file.relative_to(root)): _text(file) for pattern in PATTERNS for file in root.glob(pattern)}
    found = find_sensor(tree, shutil.which(PROGRAM) or "" if root == _ROOT else "")
    return _opened(found, root) if isinstance(found, Sensor) else found


def _opened(sensor: Sensor, root: Path) -> Source:
    if sensor.lines:
        reader = TegrastatsReader(sensor.lines[0])
        return Source(sensor.method, sensor.counts, reader.watts, reader.close)
    read, files = sensor.reader(), [root / file for file in sensor.files]
    return Source(sensor.method, sensor.counts, lambda: read([number(_text(file)) for file in files]))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
