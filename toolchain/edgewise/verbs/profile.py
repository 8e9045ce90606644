"""``edgewise.profile``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgewise.errors import ToolchainError
from edgewise.runtime.devices.address import LOCAL
from edgewise.runtime.progress import Progress, silent
from edgewise.settings import ProfileSettings
from edgewise.stages.gates import device_gates, latency_gates
from edgewise.stages.profile import identify, profile_stage
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


def profile_two(
    bundle: str | Path,
    other: str | Path,
    *,
    threads: int = 0,
    rounds: int | None = None,
    alone: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure two bundles in turns on this machine.

    Args:
        bundle: the one that the other is held against.
        other: the other.
        threads: 0 is all cores.
        rounds: turns of each; None: 40.
        alone: options that mean something for one bundle alone; any that was given is refused.
        progress: told how far the work is.

    Returns:
        What :func:`edgewise.runtime.profile.pair.profile_pair` gives, with ``bundle`` in ``a`` and ``b``: which builds they are of.

    Raises:
        RunError: not a bundle, or one that this machine cannot run.
        ToolchainError: an option for one bundle alone.
    """
    from edgewise.runtime.profile.pair import profile_pair

    given = [key for key, value in (alone or {}).items() if value not in (None, False, LOCAL)]
    if given:
        raise ToolchainError(
            "two bundles are compared as a whole, on this machine", where="edgewise profile A B",
            found="--" + given[0].replace("_", "-"), expected="two bundles, --threads and --runs",
            fix="Leave it out, or profile each bundle alone",
        )  # fmt: skip
    result = profile_pair(bundle, other, threads=threads, rounds=rounds, progress=progress)
    for name, path in (("a", bundle), ("b", other)):
        result[name]["bundle"] = identify(path)
    return result
