"""A device's own power sensors, read there by the agent while a program runs beside it (``edgewise-bench --watch``)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from edgewise.runtime.devices.address import Address
from edgewise.runtime.devices.shell import Shell
from edgewise.runtime.energy import charge
from edgewise.runtime.energy.account import EVERY_S, Sample, energy_of
from edgewise.runtime.energy.sensors import PATTERNS, Sensor, find_sensor
from edgewise.runtime.energy.tegrastats import PROGRAM

_METERED = "an external meter is named"
_NAMES = "|".join(sorted({re.escape(pattern.rpartition("/")[2]).replace(r"\*", r"\d+") for pattern in PATTERNS}))
# As `grep` prints it: folders have colons in their names.
_LINE = re.compile(rf"(.*?/(?:{_NAMES})):(.*)")


class Watch:
    """The sensor of a device beside one program there.

    Args:
        device: where it is looked for.
        address: ``sensors`` of it is the folder that holds ``sys``; with a ``meter`` nothing is looked for.
        agent: what starts the agent there.
        duration_s: how long it will be measured, if that is known.
    """

    def __init__(self, device: Shell, address: Address, agent: Sequence[str], duration_s: float = 0.0) -> None:
        self._root, self._agent = address.sensors.rstrip("/"), list(agent)
        self._sensor: Sensor | str = _METERED if address.meter else self._found(device, duration_s)

    def beside(self, program: Sequence[str]) -> list[str]:
        """The words that start a program with the sensor beside it; the program's own where there is none."""
        if isinstance(self._sensor, str):
            return list(program)
        if self._sensor.lines:
            what = ["--lines", "exec " + shlex.join(self._sensor.lines)]
        else:
            what = [f"{self._root}/{file}" for file in self._sensor.files]
        return [*self._agent, "--watch", str(self._sensor.idle_s), str(EVERY_S), *what, "--", *program]

    def energy(self, answer: Mapping[str, Any], window: tuple[float, float], runs: int) -> dict[str, Any] | str:
        """What ``runs`` inferences took, out of the agent's answer; or why it is not known.

        Args:
            answer: with ``watched``.
            window: begin and end of the runs in seconds of the device's CLOCK_MONOTONIC.
            runs: their number.
        """
        if isinstance(self._sensor, str):
            return self._sensor
        watched, sensor = answer.get("watched"), self._sensor
        if watched is None:
            return f"{sensor.method}: the agent did not say what it read"
        samples = _samples(sensor, watched)
        begin, end = watched["idle"]
        moved = len({sample.value for sample in samples if window[0] <= sample.at_s <= window[1]}) - 1
        if moved < sensor.least_steps:
            return f"{sensor.method}: it moved {max(moved, 0)} times during the runs, too seldom to tell: measure for longer"
        method = f"{sensor.method}, read on the device"
        return energy_of(samples, window, (begin, end), runs, counts=sensor.counts, method=method)

    def _found(self, device: Shell, duration_s: float) -> Sensor | str:
        found = find_sensor(self._tree(device), _path_of(PROGRAM, device))
        if isinstance(found, Sensor) or not _path_of(charge.PROGRAM, device):
            return found
        if against := charge.reason_against(device.ask(f"{charge.PROGRAM} battery || true")):
            return f"{found}; {against}"
        method = "battery charge counter (dumpsys battery)"
        if duration_s < charge.LEAST_S:
            return f"{found}; {method}: too coarse for so short a run: measure with --duration 300"
        return Sensor(
            method, True, lines=charge.LINES, read_lines=charge.joules, idle_s=charge.IDLE_S, least_steps=charge.LEAST_STEPS
        )  # fmt: skip

    def _tree(self, device: Shell) -> dict[str, str]:
        """One process for all files. What cannot be read is left out; folders that may not be listed too, as on some phones."""
        words = " ".join(f"{shlex.quote(self._root)}/{pattern}" for pattern in PATTERNS)
        told = device.ask(f"grep -s '' {words} /dev/null; true")
        found: dict[str, str] = {}
        for line in told.splitlines():
            if match := _LINE.fullmatch(line):
                found.setdefault(match[1].removeprefix(f"{self._root}/"), match[2].strip())
        return found


def _path_of(program: str, device: Shell) -> str:
    return device.ask(f"command -v {program} || true")


def _samples(sensor: Sensor, watched: Mapping[str, Any]) -> list[Sample]:
    if sensor.lines:
        read_line = sensor.read_lines()
        told = [(at_s, read_line(line)) for at_s, line in watched["lines"]]
    else:
        read = sensor.reader()
        told = [(at_s, read(row)) for at_s, row in zip(watched["at_s"], watched["values"], strict=True)]
    return [Sample(at_s, value) for at_s, value in told if value is not None]
