"""The profiler of this machine: sends a worker off to measure, and makes the profile out of what it brings back."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from edgewise.runtime.bundle import open_bundle, save_reference
from edgewise.runtime.energy import Account, Source, energy_of, find_source
from edgewise.runtime.errors import RunError
from edgewise.runtime.profile.agent_here import concurrency_here, run_agent
from edgewise.runtime.profile.result import make_profile
from edgewise.runtime.profile.roofline import find_peak
from edgewise.runtime.profile.timing import DEFAULT_MIN_TIME_S
from edgewise.runtime.progress import Progress, silent

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
    duration_s: float = 0.0,
    per_layer: bool = False,
    cold: bool = False,
    concurrency: Sequence[int] = (),
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
        duration_s: above 0: sustained, for so long; the profile then has a point about every second.
        per_layer: run a second time with the engine's own record per layer.
        cold: start once with the bundle's files out of the page cache, in a process of its own: ``cold`` in the result.
        concurrency: run so many contexts of the engine at once, one number after the other: ``concurrency_sweep`` in the result.
        samples: inputs to run in turn; None: those in the bundle, or random ones.
        progress: told what is being done.

    Raises:
        RunError: the bundle cannot be loaded or run, the worker crashed, or a number is out of range.
    """
    check_numbers(threads, runs, warmup, min_time_s, duration_s)
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
            "duration_s": duration_s,
            "per_layer": per_layer,
            "samples": None if samples is None else str(file),
        }
        started = send_off({**order, "cold": True}, progress) if cold else None
        measured, energy = with_energy(order, find_source(), progress)
    if measured["layers"] and "arena_bytes" in measured:
        measured["peak"] = find_peak(measured, threads, run_agent, progress)
    if concurrency:
        progress("run several contexts at once", 0, None)
        measured["concurrency"] = concurrency_here(path, concurrency, threads, samples)
    return {**make_profile(measured, threads, energy, open_bundle(path)), "cold": started}


def with_energy(order: dict[str, Any], source: Source | str, progress: Progress) -> tuple[dict[str, Any], Any]:
    """What the worker measured, and the energy that the machine's sensor saw meanwhile (or why it saw none)."""
    if isinstance(source, str):
        return send_off(order, progress), source
    idle_from = time.monotonic()
    with Account(source) as account:
        idle = (idle_from, time.monotonic())
        measured = send_off(order, progress)
    begin, end = measured["window"]
    runs = measured["count"]
    return measured, energy_of(account.samples, (begin, end), idle, runs, counts=source.counts, method=source.method)


def check_numbers(
    threads: int, runs: int | None, warmup: int | None, min_time_s: float, duration_s: float = 0.0
) -> None:
    """Refuse numbers that mean nothing.

    Raises:
        RunError: names the number.
    """
    checks = {
        "threads": (threads, threads >= 0, "0 (all cores) or more"),
        "runs": (runs, runs is None or runs >= 1, "at least 1"),
        "warmup": (warmup, warmup is None or warmup >= 0, "0 or more"),
        "min_time_s": (min_time_s, math.isfinite(min_time_s) and min_time_s > 0, "more than 0 seconds"),
        "duration_s": (duration_s, math.isfinite(duration_s) and duration_s >= 0, "0 (not sustained) or more seconds"),
    }
    for name, (value, fine, expected) in checks.items():
        if not fine:
            raise RunError("cannot measure", where=name, found=str(value), expected=expected, fix="Change the number")


def send_off(order: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Let a worker carry out an order; gives what it measured.

    Raises:
        RunError: what went wrong in the worker, or that it crashed.
    """
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
