"""What NVIDIA's ``tegrastats`` prints about power, on Jetsons whose rails cannot be read from /sys."""

from __future__ import annotations

import re
import subprocess
import threading
from typing import IO, cast

# "VDD_IN 4920mW/4893mW" since JetPack 4.6, "POM_5V_IN 3110/3067" before: now and mean so far, in milliwatts.
_RAIL = re.compile(r"\b((?:VDD|POM|VIN|CV|SOC|CPU|GPU|SYS|NC)[A-Z0-9_]*) (\d+)(?:mW)?/(\d+)(?:mW)?(?=\s|$)")
PROGRAM = "tegrastats"
_EVERY_MS = 100
_WHOLE_BOARD = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0")


def command(program: str) -> list[str]:
    """How it is started to print a line at regular times."""
    return [program, "--interval", str(_EVERY_MS)]


def rails_w(line: str) -> dict[str, float]:
    """Watts at this moment by rail, out of one line; empty for a line without any."""
    return {name: int(now) / 1000 for name, now, _ in _RAIL.findall(line)}


def board_w(line: str) -> float | None:
    """Watts of the whole board: its input rail, else the sum of the rails; None for a line without any."""
    rails = rails_w(line)
    whole = next((rails[name] for name in _WHOLE_BOARD if name in rails), None)
    return whole if whole is not None else sum(rails.values()) or None


class TegrastatsReader:
    """The program itself, started by the first reading and ended by :meth:`close`."""

    def __init__(self, program: str) -> None:
        self._command = command(program)
        self._process: subprocess.Popen[str] | None = None
        self._latest: float | None = None

    def watts(self) -> float | None:
        """Of the latest line; None before there is one."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            threading.Thread(target=self._listen, args=(cast(IO[str], self._process.stdout),), daemon=True).start()
        return self._latest

    def close(self) -> None:
        """End the program."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _listen(self, lines: IO[str]) -> None:
        with lines:
            for line in lines:
                self._latest = board_w(line)
