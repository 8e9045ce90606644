"""``edgewise.profile``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgewise.runtime.progress import Progress, silent
from edgewise.settings import ProfileSettings
from edgewise.stages.gates import device_gates, latency_gates
from edgewise.stages.profile import profile_stage
from edgewise.verbs.result import require


def profile(
    bundle: str | Path,
    *,
    device: str = "local",
    function: str | None = None,
    threads: int = 0,
    per_layer: bool = False,
    runs: int | None = None,
    warmup: int | None = None,
    max_latency_ms: float | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure a bundle on this machine or another device.

    Args:
        bundle: ``NAME.edge`` or a zip of one.
        device: ``local``, ``ssh://user@host[:port][?key=FILE]``, ``adb:SERIAL``, or a name out of ``devices.toml``.
        function: what to measure, of an engine that computes several things; None: the network itself.
        threads: 0 is all cores.
        per_layer: time every layer as well.
        runs: how many runs to time; None lets the time decide.
        warmup: how many runs to throw away first.
        max_latency_ms: the gate on the median.
        progress: told how far the work is.

    Returns:
        The profile result of docs/report.md, with ``bundle``: which build it is of.

    Raises:
        RunError: not a bundle, or one that this machine cannot run.
        DeviceError: the device cannot be reached, or cannot run it.
        GateError: the median is above the limit, or the outputs on another device do not agree with the reference.
    """
    settings = ProfileSettings(device, function, threads, per_layer, runs, warmup, max_latency_ms)
    result = profile_stage(Path(bundle), settings, progress=progress)
    return require([*device_gates(result, settings), *latency_gates(result, settings, str(bundle))], result)
