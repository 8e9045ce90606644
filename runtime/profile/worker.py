"""The process that measures: ``python -m edgewise.runtime.profile.worker``, an order on stdin, JSON lines on stdout.

A process of its own, so that loading is cold as in an app, the memory is the engine's, and a crash is an error and not the end
of the caller. Lines are ``{"progress": [task, done, total]}``, and at the end ``{"result": …}`` or ``{"error": …}``.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import IO, Any

import numpy as np

from edgewise.runtime.errors import EdgewiseError
from edgewise.runtime.model import Model, load
from edgewise.runtime.profile.machine import (
    Glance,
    clock_limits_mhz,
    describe_machine,
    describe_system,
    glance,
    governor,
    peak_memory_bytes,
)
from edgewise.runtime.profile.samples import samples_of
from edgewise.runtime.profile.timing import Point, Timings, measure

Tell = Callable[[dict[str, Any]], None]

_MOST_LAYER_RUNS = 50


def work(order: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Carry out an order.

    Its keys: ``path``, ``function``, ``threads``, ``runs``, ``warmup``, ``min_time_s``, ``duration_s``, ``per_layer``, ``samples`` (a file or None).

    Raises:
        EdgewiseError: the bundle cannot be loaded or run.
    """
    before_bytes = peak_memory_bytes()
    tell({"progress": ["load", 0, None]})
    start = time.perf_counter_ns()
    model = load(order["path"], threads=order["threads"], function=order["function"])
    load_ns = time.perf_counter_ns() - start
    samples = samples_of(model, order["samples"])
    glances: list[Glance] = []
    cpu_s: list[float] = []

    window: list[float] = []

    def look() -> Glance:
        window.append(time.monotonic())
        glances.append(glance())
        cpu_s.append(time.process_time())
        return glances[-1]

    timings = _measure(model, samples, order, look, tell)
    peak_bytes = peak_memory_bytes()
    model.run(samples[0])  # outputs that are not what the manifest says are an error
    return {
        "machine": describe_machine(),
        "os": describe_system(),
        "governor": governor(),
        "clocks": clock_limits_mhz(),
        "load_ms": load_ns / 1e6,
        "first_run_ms": timings.first_ns / 1e6,
        "warmup_ms": [ns / 1e6 for ns in timings.warmup_ns],
        "runs_ms": [ns / 1e6 for ns in timings.runs_ns],
        "stable": timings.stable,
        "count": timings.count,
        "series": [_point(point) for point in timings.series],
        "own_cpu_s": cpu_s[-1] - cpu_s[0],
        "glances": [vars(moment) for moment in glances],
        "memory_before_load_bytes": before_bytes,
        "peak_memory_bytes": peak_bytes,
        "window": [window[0], window[-1]],
        "resolution_ms": time.get_clock_info("perf_counter").resolution * 1e3,
        "engine": model.facts(),
        "phases_ms": model.phase_times() or None,
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "input_shapes": {name: list(array.shape) for name, array in samples[0].items()},
        **_memory(model),
        "layers": _layers(order, samples, tell) if order["per_layer"] else None,
    }


def _measure(
    model: Model, samples: list[dict[str, np.ndarray]], order: dict[str, Any], look: Callable[[], Glance], tell: Tell
) -> Timings:
    turn = cycle([model.timed(sample) for sample in samples])
    return measure(
        lambda: next(turn)(),
        runs=order["runs"],
        warmup=order["warmup"],
        min_time_s=order["min_time_s"],
        duration_s=order["duration_s"],
        glance=look,
        tell=lambda task, done, total: tell({"progress": [task, done, total]}),
    )


def _memory(model: Model) -> dict[str, int]:
    """Weights and arena, as the agent tells them, of an engine that knows."""
    return {key: value for key, value in model.memory().items() if key in ("weights_bytes", "arena_bytes")}


def _point(point: Point) -> dict[str, Any]:
    """As the agent tells it."""
    moment = point.glance
    return {
        "at_s": point.at_s,
        "median_ms": point.median_ms,
        "clock_mhz": moment.clock_mhz,
        "temperature_c": moment.temperature_c,
    }


def _layers(order: dict[str, Any], samples: list[dict[str, np.ndarray]], tell: Tell) -> list[dict[str, Any]]:
    """A second time, with the engine's own record, which slows it down."""
    tell({"progress": ["measure layers", 0, None]})
    model = load(order["path"], threads=order["threads"], per_layer=True, function=order["function"])
    turn = cycle(samples)
    runs = min(order["runs"] or _MOST_LAYER_RUNS, _MOST_LAYER_RUNS)
    for _ in range(1 + runs):
        model.run(next(turn))
    return [
        {"name": layer.name, "op": layer.op, "unit": layer.unit, "median_ms": layer.median_ms, **layer.detail}
        for layer in model.layer_times()
    ]


def _pair(order: dict[str, Any], tell: Tell) -> dict[str, Any]:
    from edgewise.runtime.profile.pair import take_turns

    return {**take_turns(order, tell), "machine": describe_machine()}


def _cold(order: dict[str, Any], tell: Tell) -> dict[str, Any]:
    from edgewise.runtime.profile.cold import cold_start

    return cold_start(order, tell)


def answer(job: Callable[[Tell], dict[str, Any]]) -> None:
    """Do a job and write its lines: progress, then the result or what went wrong."""
    with _private_stdout() as channel:

        def tell(line: dict[str, Any]) -> None:
            channel.write(json.dumps(line) + "\n")
            channel.flush()

        try:
            tell({"result": job(tell)})
        except EdgewiseError as error:
            tell({"error": error.parts})


@contextmanager
def _private_stdout() -> Iterator[IO[str]]:
    """Libraries print to file descriptor 1 when they like; let it go to stderr, and keep the real one for the answer."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)
        yield channel


def main() -> None:
    """Read the order, answer."""
    order = json.loads(sys.stdin.read())
    job = _pair if "pair" in order else _cold if "cold" in order else work
    answer(lambda tell: job(order, tell))


if __name__ == "__main__":
    main()
