"""Device profiles: one TOML file each in ``targets/devices/``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from edgewise.runtime.errors import EdgewiseError


@dataclass(frozen=True)
class DeviceProfile:
    """What is known about a kind of device. ``settings`` holds one table per target, such as ``[tensorrt]`` with its ``sm``."""

    name: str
    summary: str
    targets: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)


@cache
def device_profiles() -> dict[str, DeviceProfile]:
    """Every profile found, by name (the file's name)."""
    folder = resources.files("edgewise.targets") / "devices"
    found = {}
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".toml"):
            name = file.name.removesuffix(".toml")
            found[name] = _parse(name, tomllib.loads(file.read_text(encoding="utf-8")))
    return found


def _parse(name: str, table: dict[str, Any]) -> DeviceProfile:
    targets = tuple(table.pop("targets"))
    settings = {key: table.pop(key) for key in targets if isinstance(table.get(key), dict)}
    return DeviceProfile(name, table.pop("summary"), targets, facts=table, settings=settings)


def find_device(name: str, target: str) -> DeviceProfile:
    """A profile by name that has the target.

    Raises:
        EdgewiseError: unknown device, or one that the target does not serve.
    """
    profiles = device_profiles()
    fitting = [profile.name for profile in profiles.values() if target in profile.targets]
    if name not in fitting:
        found = (
            f"{name!r}, which has {', '.join(profiles[name].targets)}" if name in profiles else f"no profile {name!r}"
        )
        raise EdgewiseError(
            "unknown device",
            where=f"--device {name}, target {target}",
            found=found,
            expected=f"one of {', '.join(fitting) or 'none yet'}",
            fix="See `edgewise devices`, or add a TOML file (CONTRIBUTING.md, 'add a device')",
        )
    return profiles[name]
