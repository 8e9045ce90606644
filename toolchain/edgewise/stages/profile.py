"""The stage that measures a bundle: on this machine, or on the device that ``device`` names."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edgewise.errors import ToolchainError
from edgewise.runtime.bundle import open_bundle
from edgewise.runtime.devices.address import LOCAL, Address, parse_address
from edgewise.runtime.devices.runners import Order
from edgewise.runtime.progress import Progress, silent
from edgewise.settings import ProfileSettings, VerifySettings
from edgewise.stages.precision import measure_within
from edgewise.stages.verify import judge, provenance_of, source_threshold


def profile_stage(path: Path, settings: ProfileSettings, *, progress: Progress = silent) -> dict[str, Any]:
    """Measure; gives the profile with the key ``bundle``: which build it is of.

    On another device the outputs are compared with the bundle's reference as well: ``parity`` is that verdict.

    Raises:
        DeviceError: an unknown device, or one that cannot be reached or cannot run the bundle.
        RunError: this machine cannot run the bundle.
    """
    address = parse_address(settings.device)

    def measure(runs: int | None) -> dict[str, Any]:
        asked = replace(settings, runs=runs)
        return _here(path, asked, progress) if address.kind == LOCAL else _elsewhere(path, asked, address, progress)

    result = measure_within(measure, settings.within, settings.runs, settings.duration_s)
    return {**result, "bundle": identify(path)}


def _here(path: Path, settings: ProfileSettings, progress: Progress) -> dict[str, Any]:
    from edgewise.runtime.profile import profile

    return profile(
        path,
        function=settings.function or "",
        threads=settings.threads,
        runs=settings.runs,
        warmup=settings.warmup,
        duration_s=settings.duration_s,
        per_layer=settings.per_layer,
        cold=settings.cold,
        concurrency=settings.concurrency,
        progress=progress,
    )


def _elsewhere(path: Path, settings: ProfileSettings, address: Address, progress: Progress) -> dict[str, Any]:
    from edgewise.runtime.devices.remote import profile_remote
    from edgewise.runtime.profile.local import check_numbers
    from edgewise.runtime.profile.timing import DEFAULT_MIN_TIME_S

    if settings.function:
        raise ToolchainError(
            "cannot measure a function on another device", where=f"--device {settings.device}, --function {settings.function}",
            found="an engine with several functions", expected="the network itself", fix="Leave --function out, or measure on the device",
        )  # fmt: skip
    check_numbers(settings.threads, settings.runs, settings.warmup, DEFAULT_MIN_TIME_S, settings.duration_s)
    order = Order(
        threads=settings.threads, runs=settings.runs, warmup=settings.warmup, duration_s=settings.duration_s, per_layer=settings.per_layer,
        cold=settings.cold, concurrency=settings.concurrency,
    )  # fmt: skip
    result, parities = profile_remote(path, address, order, progress)
    threshold = source_threshold(VerifySettings(), provenance_of(open_bundle(path).manifest))
    return {**result, "parity": judge(parities, threshold, f"{path} on {address.text}") if parities else None}


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
