"""``edgewise.profile``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgewise.errors import ToolchainError
from edgewise.runtime.devices.address import LOCAL, parse_address
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
    duration_s: float = 0.0,
    thread_sweep: Sequence[int] = (),
    cold: bool = False,
    concurrency_sweep: Sequence[int] = (),
    within: float | None = None,
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
        duration_s: above 0: sustained, for so many seconds; ``series`` then has a point about every second.
        thread_sweep: measure with each of these numbers of threads too: ``thread_sweep`` in the result has their medians.
        cold: time a start with the bundle's files out of the page cache as well: ``cold`` in the result.
        concurrency_sweep: run so many contexts of the engine at once, with the weights shared: ``concurrency_sweep`` in the result has
            throughput and latency of each number; of ``threads`` threads each, 0 meaning one. For bundles of libedgewise.
        within: a share such as 0.01: measure with more and more runs until the median's 95 % interval reaches no further than that from it.
        progress: told how far the work is.

    Returns:
        The profile result of docs/report.md, with ``bundle``: which build it is of.

    Raises:
        RunError: not a bundle, or one that this machine cannot run.
        DeviceError: the device cannot be reached, or cannot run it.
        GateError: the median is above the limit, or the outputs on another device do not agree with the reference.
    """
    settings = ProfileSettings(
        device,
        function,
        threads,
        per_layer,
        runs,
        warmup,
        max_latency_ms,
        duration_s,
        cold,
        tuple(concurrency_sweep),
        within,
    )
    result = profile_stage(Path(bundle), settings, progress=progress)
    if thread_sweep:
        result["thread_sweep"] = [_with_threads(Path(bundle), settings, count, progress) for count in thread_sweep]
    return require([*device_gates(result, settings), *latency_gates(result, settings, str(bundle))], result)


def _with_threads(bundle: Path, settings: ProfileSettings, count: int, progress: Progress) -> dict[str, Any]:
    """The median with so many threads, and its interval."""
    progress(f"measure with {count} threads", 0, None)
    told = profile_stage(
        bundle, replace(settings, threads=count, per_layer=False, duration_s=0.0, cold=False, concurrency=())
    )["latency_ms"]
    return {"threads": count, "median_ms": told["median"], "median_interval_ms": told["median_interval"]}


def profile_two(
    bundle: str | Path,
    other: str | Path,
    *,
    device: str = LOCAL,
    threads: int = 0,
    rounds: int | None = None,
    alone: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure two bundles in turns, on this machine or another device.

    Args:
        bundle: the one that the other is held against.
        other: the other.
        device: as for :func:`profile`.
        threads: 0 is all cores.
        rounds: turns of each; None: 40, on another device 12.
        alone: options that mean something for one bundle alone; any that was given is refused.
        progress: told how far the work is.

    Returns:
        What :func:`edgewise.runtime.profile.pair.profile_pair` gives (and :func:`edgewise.runtime.devices.pair.profile_pair_remote`), with ``bundle`` in ``a`` and ``b``: which builds they are of.

    Raises:
        RunError: not a bundle, or one that this machine cannot run.
        DeviceError: the device cannot be reached, or cannot run it.
        ToolchainError: an option for one bundle alone.
    """
    from edgewise.runtime.devices.pair import profile_pair_remote
    from edgewise.runtime.profile.local import check_numbers
    from edgewise.runtime.profile.pair import profile_pair
    from edgewise.runtime.profile.timing import DEFAULT_MIN_TIME_S

    given = [key for key, value in (alone or {}).items() if value not in (None, False)]
    if given:
        raise ToolchainError(
            "two bundles are compared as a whole", where="edgewise profile A B",
            found="--" + given[0].replace("_", "-"), expected="two bundles, --device, --threads and --runs",
            fix="Leave it out, or profile each bundle alone",
        )  # fmt: skip
    address = parse_address(device)
    check_numbers(threads, rounds, None, DEFAULT_MIN_TIME_S)
    if address.kind == LOCAL:
        result = profile_pair(bundle, other, threads=threads, rounds=rounds, progress=progress)
    else:
        result = profile_pair_remote(bundle, other, address, threads=threads, rounds=rounds, progress=progress)
    for name, path in (("a", bundle), ("b", other)):
        result[name]["bundle"] = identify(path)
    return result
