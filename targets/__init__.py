"""ONNX to engine: one target per file, found by its presence (or by the entry point group ``edgewise.targets``)."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points

from edgewise.targets.base import BuildRequest, BuildResult, Executor, NodeSupport, Target, TargetError
from edgewise.targets.devices import DeviceProfile, device_profiles, find_device

__all__ = [
    "BuildRequest",
    "BuildResult",
    "DeviceProfile",
    "Executor",
    "NodeSupport",
    "Target",
    "TargetError",
    "device_profiles",
    "find_device",
    "find_target",
    "targets",
]


@cache
def targets() -> dict[str, Target]:
    """Every target found, by name. Importing a target does not import its vendor's package."""
    found: dict[str, Target] = {}
    for module in pkgutil.iter_modules(__path__):
        target = getattr(importlib.import_module(f"edgewise.targets.{module.name}"), "TARGET", None)
        if target is not None:
            found[target.name] = target
    for entry in entry_points(group="edgewise.targets"):
        target = entry.load()
        found[target.name] = target
    return found


def find_target(name: str) -> Target:
    """A target by name.

    Raises:
        TargetError: there is none of that name.
    """
    found = targets()
    if name not in found:
        raise TargetError(
            "unknown target",
            where=f"--target {name}",
            found=repr(name),
            expected=f"one of {', '.join(sorted(found))}",
            fix="Check the name",
        )
    return found[name]
