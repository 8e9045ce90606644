"""A profile, out of the raw measurements of this machine's worker or a device's agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from edgewise.runtime.bundle import Bundle
from edgewise.runtime.profile.interval import median_interval
from edgewise.runtime.profile.judge import Evidence, judge
from edgewise.runtime.profile.machine import Glance
from edgewise.runtime.profile.roofline import roofed

SCHEMA_VERSION = 1


def make_profile(
    measured: dict[str, Any], threads: int, energy: dict[str, Any] | str, bundle: Bundle | None = None
) -> dict[str, Any]:
    """The profile that docs/runtime.md describes, out of what the worker or the agent brings back.

    ``energy`` is what :func:`edgewise.runtime.energy.energy_of` gives: a table, or the reason why there is none. ``bundle`` tells what each
    layer reads and writes, for its roof.
    """
    runs_ms, layers = measured["runs_ms"], measured["layers"]
    glances = [Glance(**moment) for moment in measured["glances"]]
    engine, mode, peak = measured["engine"], measured["governor"], measured.get("peak")
    clocks = [glance.clock_mhz for glance in glances]
    evidence = Evidence(
        runs_ms, measured["stable"], glances, measured["own_cpu_s"], measured["resolution_ms"], mode, layers or [], engine["unit"]
    )  # fmt: skip
    return {
        "schema_version": SCHEMA_VERSION,
        "device": measured["machine"],
        "os": measured["os"],
        "clocks": {**measured["clocks"], "before_mhz": clocks[0], "after_mhz": clocks[-1]},
        "governor": mode,
        "threads": threads,
        "versions": {"edgewise": own_version(), **measured["versions"], engine["library"]: engine["version"]},
        "engine": engine,
        "input_shapes": measured["input_shapes"],
        "load_ms": measured["load_ms"],
        "first_run_ms": measured["first_run_ms"],
        "cold": None,
        "warmup_ms": measured["warmup_ms"],
        "latency_ms": summarize(runs_ms),
        "phases_ms": measured.get("phases_ms"),
        "series": measured.get("series") or None,
        "peak_memory_bytes": measured["peak_memory_bytes"],
        "memory_before_load_bytes": measured["memory_before_load_bytes"],
        "energy": None if isinstance(energy, str) else energy,
        "energy_reason": energy if isinstance(energy, str) else None,
        "layers": None if layers is None else roofed([_layer(layer, layers) for layer in layers], peak, bundle),
        "peak": peak,
        "concurrency_sweep": measured.get("concurrency") or None,
        "glances": [asdict(glance) for glance in glances],
        "warnings": judge(evidence),
    }


def summarize(runs_ms: Sequence[float]) -> dict[str, Any]:
    """Minimum, median, mean, p90, p99 (linear between neighbours), sample standard deviation, and the samples themselves.

    ``median_interval`` holds the median with 95 % confidence (:mod:`edgewise.runtime.profile.interval`).
    """
    interval = median_interval(runs_ms)
    values = np.asarray(runs_ms, np.float64)
    middle, p90, p99 = np.percentile(values, (50, 90, 99))
    return {
        "min": float(values.min()),
        "median": float(middle),
        "median_interval": list(interval) if interval else None,
        "mean": float(values.mean()),
        "p90": float(p90),
        "p99": float(p99),
        "std": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        "samples": list(runs_ms),
    }


def _layer(layer: dict[str, Any], layers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """With its share of the time of all layers, and its rate in billions of multiply-accumulates per second."""
    total = sum(other["median_ms"] for other in layers)
    macs, took_ms = layer.get("macs"), layer["median_ms"]
    return {
        **layer,
        "share": took_ms / total if total else 0.0,
        "gmacs_per_s": macs / took_ms / 1e6 if macs and took_ms else None,
    }


def own_version() -> str:
    """Of edgewise, as it was installed."""
    try:
        return version("edgewise")
    except PackageNotFoundError:
        return "unknown"
