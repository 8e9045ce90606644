"""Which device profile describes the processor that we run on."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from edgewise.targets.devices import DeviceProfile, device_profiles

_CPUINFO = Path("/proc/cpuinfo")
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}  # what Windows and macOS call them
_BASELINE = "x86-64-v3"


@cache
def host_device() -> str:
    """The name of the profile that uses most of what this machine's processor has; ``x86-64-v3`` where it cannot be read."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        text = ""
    machine = platform.machine().lower()
    return best_profile(_MACHINES.get(machine, machine), text, device_profiles())


def best_profile(arch: str, cpuinfo: str, profiles: Mapping[str, DeviceProfile]) -> str:
    """Among the profiles of an architecture that ask for nothing which ``cpuinfo`` lacks, the one that asks for most.

    Args:
        arch: ``x86_64`` or ``aarch64``.
        cpuinfo: the text of Linux's ``/proc/cpuinfo``.
        profiles: to choose from; of several that ask for as much, the last by name.
    """
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    if match is None:
        return _BASELINE
    has = set(match[1].split())
    fitting = [
        (len(profile.facts["isa"]), name)
        for name, profile in profiles.items()
        if "cpu" in profile.targets
        and profile.facts.get("arch") == arch
        and set(profile.facts.get("isa", ["?"])) <= has
    ]
    return max(fitting)[1] if fitting else _BASELINE
