"""The stage that measures a bundle, where this machine can run it."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgewise.errors import ToolchainError
from edgewise.runtime.bundle import open_bundle
from edgewise.runtime.progress import Progress, silent
from edgewise.settings import ProfileSettings

LOCAL = "local"


def check_device(device: str) -> None:
    """Refuse everything but this machine.

    Raises:
        ToolchainError: a remote device (they come later), or no device at all.
    """
    if device == LOCAL:
        return
    remote = device.startswith(("ssh://", "adb:"))
    raise ToolchainError(
        "cannot profile on a remote device yet" if remote else "unknown device",
        where=f"--device {device}",
        found="a remote device" if remote else repr(device),
        expected="local, the one device that this version of edgewise measures on",
        fix="Copy the bundle to the device and run `edgewise profile` there; ssh:// and adb: come in a later version",
    )


def profile_stage(path: Path, settings: ProfileSettings, *, progress: Progress = silent) -> dict[str, Any]:
    """Measure; gives the profile with the key ``bundle``: which build it is of.

    Raises:
        ToolchainError: a remote device.
        RunError: this machine cannot run the bundle.
    """
    check_device(settings.device)
    from edgewise.runtime.profile import profile

    result = profile(
        path,
        function=settings.function or "",
        threads=settings.threads,
        runs=settings.runs,
        warmup=settings.warmup,
        per_layer=settings.per_layer,
        progress=progress,
    )
    return {**result, "bundle": identify(path)}


def identify(path: Path | str) -> dict[str, Any]:
    """What tells one build from another: results that lie beside a bundle are matched by it."""
    manifest = open_bundle(path).manifest
    return {"name": manifest.get("name"), "target": manifest["target"], "engine_sha256": engine_digests(manifest)}


def engine_digests(manifest: dict[str, Any]) -> list[str]:
    """The digests of the engine's own files, in their order."""
    return [manifest["files"][name] for name in manifest["engine"]["files"]]


def profile_parts(manifest: dict[str, Any], settings: ProfileSettings) -> dict[str, Any]:
    """What a measurement belongs to: the engine, the settings and this machine."""
    machine = [platform.node(), platform.machine(), platform.platform(), os.cpu_count()]
    return {"engine": engine_digests(manifest), "settings": asdict(settings), "machine": machine}
