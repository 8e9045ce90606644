"""The charge counter of a phone's battery, as Android's ``dumpsys battery`` prints it where /sys may not be read.

It moves in steps of about a milliampere-hour, some ten joules: enough for minutes, not for seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable

PROGRAM = "dumpsys"
# Counted in microampere-hours and millivolts; "Max charging voltage" is another thing.
LINES = ("sh", "-c", "while :; do dumpsys battery | grep -E '^ *(Charge counter|voltage):'; sleep 1; done")
LEAST_S, IDLE_S, LEAST_STEPS = 60.0, 60.0, 10
_LINE = re.compile(r" *([A-Za-z ]+): *(-?\w+)")
_STATUS = {"2": "charging", "3": "discharging", "4": "not charging", "5": "full"}
_JOULES_PER_UAH_MV = 3.6e-6


def reason_against(text: str) -> str:
    """Why this battery cannot tell the energy, out of what ``dumpsys battery`` prints; empty where it can."""
    told = {match[1]: match[2] for line in text.splitlines() if (match := _LINE.fullmatch(line.rstrip()))}
    if not {"Charge counter", "voltage"} <= set(told):
        return "dumpsys battery: no charge counter"
    powered = [name for name in ("AC", "USB", "Wireless", "Dock") if told.get(f"{name} powered") == "true"]
    status = _STATUS.get(told.get("status", ""), "status unknown")
    if powered or status != "discharging":
        return f"battery: {status}{', powered by ' + ' and '.join(powered) if powered else ''}, so it does not carry the load"
    return ""


def joules() -> Callable[[str], float | None]:
    """A function of each line in turn: joules taken since the first, at every voltage that follows a charge."""
    last: list[float] = []
    total = 0.0
    now: float | None = None

    def read(line: str) -> float | None:
        nonlocal total, now
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            return None
        if match[1] == "Charge counter":
            now = float(match[2])
        if match[1] != "voltage" or now is None:
            return None
        total += (last.pop() - now) * float(match[2]) * _JOULES_PER_UAH_MV if last else 0.0
        last.append(now)
        return total

    return read
