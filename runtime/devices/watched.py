"""A device's own power sensors, read there by the agent while a program runs beside it (``edgewise-bench --watch``)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from edgewise.runtime.devices.address import Address
from edgewise.runtime.devices.shell import Shell
from edgewise.runtime.energy.account import EVERY_S, IDLE_S, Sample, energy_of
from edgewise.runtime.energy.sensors import PATTERNS, Sensor, find_sensor
from edgewise.runtime.energy.tegrastats import PROGRAM, command

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
    """

    def __init__(self, device: Shell, address: Address, agent: Sequence[str]) -> None:
        self._root, self._agent = address.sensors.rstrip("/"), list(agent)
        self._sensor: Sensor | str = _METERED if address.meter else find_sensor(self._tree(device), _tegrastats(device))

    def beside(self, program: Sequence[str]) -> list[str]:
        """The words that start a program with the sensor beside it; the program's own where there is none."""
        if isinstance(self._sensor, str):
            return list(program)
        if self._sensor.lines:
            what = ["--lines", "exec " + shlex.join(command(self._sensor.lines))]
        else:
            what = [f"{self._root}/{file}" for file in self._sensor.files]
        return [*self._agent, "--watch", str(IDLE_S), str(EVERY_S), *what, "--", *program]

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
        method = f"{sensor.method}, read on the device"
        return energy_of(samples, window, (begin, end), runs, counts=sensor.counts, method=method)

    def _tree(self, device: Shell) -> dict[str, str]:
        """One process for all files. What cannot be read is left out; folders that may not be listed too, as on some phones."""
        words = " ".join(f"{shlex.quote(self._root)}/{pattern}" for pattern in PATTERNS)
        told = device.ask(f"grep -s '' {words} /dev/null; true")
        found = {}
        for line in told.splitlines():
            if match := _LINE.fullmatch(line):
                found.setdefault(match[1].removeprefix(f"{self._root}/"), match[2].strip())
        return found


def _tegrastats(device: Shell) -> str:
    return device.ask(f"command -v {PROGRAM} || true")


def _samples(sensor: Sensor, watched: Mapping[str, Any]) -> list[Sample]:
    if sensor.lines:
        told = [(at_s, sensor.watts_of_line(line)) for at_s, line in watched["lines"]]
    else:
        read = sensor.reader()
        told = [(at_s, read(row)) for at_s, row in zip(watched["at_s"], watched["values"], strict=True)]
    return [Sample(at_s, value) for at_s, value in told if value is not None]
