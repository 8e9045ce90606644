"""Programs on a device that answer in JSON lines: ``{"progress": [task, done, total]}``, at the end ``{"result": …}`` or ``{"error": …}``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from edgewise.runtime.devices.shell import Finished, Shell
from edgewise.runtime.progress import Progress


def converse(device: Shell, command: Sequence[str], progress: Progress) -> tuple[dict[str, Any], Finished]:
    """Run a program there; gives its answer (empty when it ended without one), and how it ended.

    Raises:
        DeviceError: the device vanishes.
    """
    answer: dict[str, Any] = {}

    def listen(line: str) -> None:
        told = decode(line)
        if "progress" in told:
            progress(*told["progress"])
        else:
            answer.update(told)

    return answer, device.run(command, on_line=listen)


def decode(line: str) -> dict[str, Any]:
    """Empty for a line that a crash cut short, or that a library printed."""
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
