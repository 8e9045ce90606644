"""ONNX to engine: one target per file, found by its presence (or by the entry point group ``edgewise.targets``)."""

from __future__ import annotations

from edgewise.targets.base import BuildRequest, BuildResult, Executor, NodeSupport, Target
from edgewise.targets.devices import DeviceProfile, device_profiles, find_device
from edgewise.targets.errors import TargetError
from edgewise.targets.registry import find_target, targets

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
