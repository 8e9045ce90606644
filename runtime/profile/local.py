"""The profiler of this machine: sends a worker off to measure, and makes the profile out of what it brings back."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from edgewise.runtime.bundle import save_reference
from edgewise.runtime.errors import RunError
from edgewise.runtime.profile.judge import Evidence, judge
from edgewise.runtime.profile.machine import Glance, clock_limits_mhz, describe_machine, describe_system, governor
from edgewise.runtime.profile.timing import DEFAULT_MIN_TIME_S
from edgewise.runtime.progress import Progress, silent

SCHEMA_VERSION = 1
_WORKER = "edgewise.runtime.profile.worker"
_STDERR_LINES = 2


def profile(
    path: Path | str,
    *,
    function: str = "",
    threads: int = 0,
    runs: int | None = None,
    warmup: int | None = None,
    min_time_s: float = DEFAULT_MIN_TIME_S,
    per_layer: bool = False,
    samples: Sequence[dict[str, np.ndarray]] | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure a bundle on this machine, in a process of its own; docs/runtime.md describes the result.

    Args:
        path: the bundle, a folder or zip.
        function: what to measure, of an engine that computes several things; empty: the network itself.
        threads: threads within an operator; 0 means all cores.
        runs: number of warm runs; None: at least 20, for at least ``min_time_s`` seconds.
        warmup: number of runs before them; None: until the latency has settled.
        min_time_s: see ``runs``.
        per_layer: run a second time with the engine's own record per layer.
        samples: inputs to run in turn; None: those in the bundle, or random ones.
        progress: told what is being done.

    Raises:
        RunError: the bundle cannot be loaded or run, the worker crashed, or a number is out of range.
    """
    _check_numbers(threads, runs, warmup, min_time_s)
    with tempfile.TemporaryDirectory(prefix="edgewise-") as folder:
        file = Path(folder) / "samples.npz"
        if samples is not None:
            save_reference(file, list(samples), [])
        order = {
            "path": str(path),
            "function": function,
            "threads": threads,
            "runs": runs,
            "warmup": warmup,
            "min_time_s": min_time_s,
            "per_layer": per_layer,
            "samples": None if samples is None else str(file),
        }
        measured = _send_off(order, progress)
    return _result(measured, threads)


def _check_numbers(threads: int, runs: int | None, warmup: int | None, min_time_s: float) -> None:
    checks = {
        "threads": (threads, threads >= 0, "0 (all cores) or more"),
        "runs": (runs, runs is None or runs >= 1, "at least 1"),
        "warmup": (warmup, warmup is None or warmup >= 0, "0 or more"),
        "min_time_s": (min_time_s, math.isfinite(min_time_s) and min_time_s > 0, "more than 0 seconds"),
    }
    for name, (value, fine, expected) in checks.items():
        if not fine:
            raise RunError("cannot measure", where=name, found=str(value), expected=expected, fix="Change the number")


def _send_off(order: dict[str, Any], progress: Progress) -> dict[str, Any]:
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        answer, status = _converse(json.dumps(order), said, progress)
        if "error" in answer:
            raise RunError(**answer["error"])
        if "result" not in answer:
            raise _crashed(order, status, said)
    measured: dict[str, Any] = answer["result"]
    return measured


def _converse(order: str, said: IO[str], progress: Progress) -> tuple[dict[str, Any], int]:
    """The worker's answer (empty when it ended without one) and its exit status."""
    # -P: a file in the current folder that is called like a module must not take its place.
    command = [sys.executable, "-P", "-m", _WORKER]
    pipe = subprocess.PIPE
    answer: dict[str, Any] = {}
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=said, text=True, encoding="utf-8") as worker:
        try:
            # One that has crashed already reads nothing; its exit status tells.
            with contextlib.suppress(BrokenPipeError), cast(IO[str], worker.stdin) as stdin:
                stdin.write(order)
            for line in cast(IO[str], worker.stdout):
                told = _decode(line)
                if "progress" in told:
                    progress(*told["progress"])
                else:
                    answer |= told
        except BaseException:
            worker.kill()
            raise
    return answer, worker.returncode


def _decode(line: str) -> dict[str, Any]:
    """Empty for a line that a crash cut short."""
    try:
        told: dict[str, Any] = json.loads(line)
    except ValueError:
        return {}
    return told


def _crashed(order: dict[str, Any], status: int, said: IO[str]) -> RunError:
    said.seek(0)
    last = " | ".join(said.read().strip().splitlines()[-_STDERR_LINES:])
    how = f"signal {-status}, {signal.strsignal(-status)}" if status < 0 else f"exit status {status}"
    return RunError(
        "the process that measures crashed",
        where=order["path"],
        found=how + (f" ({last})" if last else ""),
        expected="an engine that runs",
        fix="Run the bundle with edgewise.load to see whether it crashes there too; memory may have run out",
    )


def _result(measured: dict[str, Any], threads: int) -> dict[str, Any]:
    runs_ms, layers = measured["runs_ms"], measured["layers"]
    glances = [Glance(**moment) for moment in measured["glances"]]
    engine, mode = measured["engine"], governor()
    clocks = [glance.clock_mhz for glance in glances]
    evidence = Evidence(
        runs_ms, measured["stable"], glances, measured["own_cpu_s"], measured["resolution_ms"], mode, layers or [], engine["unit"]
    )  # fmt: skip
    return {
        "schema_version": SCHEMA_VERSION,
        "device": describe_machine(),
        "os": describe_system(),
        "clocks": {**clock_limits_mhz(), "before_mhz": clocks[0], "after_mhz": clocks[-1]},
        "governor": mode,
        "threads": threads,
        "versions": {"edgewise": _own_version(), **measured["versions"], engine["library"]: engine["version"]},
        "engine": engine,
        "input_shapes": measured["input_shapes"],
        "load_ms": measured["load_ms"],
        "first_run_ms": measured["first_run_ms"],
        "warmup_ms": measured["warmup_ms"],
        "latency_ms": summarize(runs_ms),
        "peak_memory_bytes": measured["peak_memory_bytes"],
        "memory_before_load_bytes": measured["memory_before_load_bytes"],
        "energy": None,
        "energy_reason": "edgewise does not read this machine's energy counters yet",
        "layers": None if layers is None else [_layer(layer, layers) for layer in layers],
        "glances": [asdict(glance) for glance in glances],
        "warnings": judge(evidence),
    }


def summarize(runs_ms: Sequence[float]) -> dict[str, Any]:
    """Minimum, median, mean, p90, p99 (linear between neighbours), sample standard deviation, and the samples themselves."""
    values = np.asarray(runs_ms, np.float64)
    middle, p90, p99 = np.percentile(values, (50, 90, 99))
    return {
        "min": float(values.min()),
        "median": float(middle),
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


def _own_version() -> str:
    try:
        return version("edgewise")
    except PackageNotFoundError:
        return "unknown"
