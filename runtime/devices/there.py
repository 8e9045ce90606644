"""The side of a device that has Python: ``python3 -m edgewise.runtime.devices.there ORDER``, JSON lines on stdout.

Only the runtime is there, and what its engine needs: numpy and the engine's library. An order is that of the worker
(:mod:`edgewise.runtime.profile.worker`) with ``check_only``, ``sensors`` (the folder that holds ``sys`` with those of power, or None), ``cold`` (that start alone) and ``variants``: engine settings to measure beside the bundle's own.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgewise.runtime.bundle import Bundle, load_reference, open_bundle
from edgewise.runtime.compare import sums_of
from edgewise.runtime.energy import find_source
from edgewise.runtime.engines import RunOptions, open_engine
from edgewise.runtime.errors import EdgewiseError
from edgewise.runtime.model import Model, load
from edgewise.runtime.profile.cold import cold_start
from edgewise.runtime.profile.local import with_energy
from edgewise.runtime.profile.samples import samples_of
from edgewise.runtime.profile.timing import measure
from edgewise.runtime.profile.worker import Tell, answer

_VARIANT_RUNS = 30
_NOT_THE_WORKERS = ("cold", "check_only", "energy", "sensors", "variants", "concurrency")


def work_there(order: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Measure (first, so that loading is cold), then compare the outputs with the reference.

    Raises:
        EdgewiseError: the bundle cannot be loaded or run.
    """
    if order["cold"]:
        return {"cold": cold_start(order, tell)}
    measured = {} if order["check_only"] else _measure(order, tell)
    tell({"progress": ["check", 0, None]})
    model = load(order["path"], threads=order["threads"])
    inputs, references = load_reference(Path(order["samples"])) if order["samples"] else _own(model)
    sums = sums_of(references, [model.run(sample) for sample in inputs]) if references else []
    checked = {"engine": model.facts(), "samples": len(inputs), "sums": sums}
    if order["check_only"]:
        return checked
    begin, end = measured["window"]
    variants = [_variant(order, settings, tell) for settings in order["variants"]]
    more = {"variants": variants, "wall_s": end - begin, "count": measured["count"]}
    return {**checked, **measured, **more}


def _measure(order: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """In a process of its own, so that the sensor is not read by the one that computes; with ``energy``, or why it is not known."""
    own = {key: value for key, value in order.items() if key not in _NOT_THE_WORKERS}
    source = find_source(Path(order["sensors"])) if order["sensors"] else "the device's sensors were not asked for"
    measured, energy = with_energy(own, source, lambda *told: tell({"progress": list(told)}))
    return measured | {"energy": energy}


def _own(model: Model) -> tuple[list[Any], list[Any]]:
    """The bundle's samples with their outputs; without them random inputs, and nothing to compare."""
    if "reference.npz" in model.bundle.manifest["files"] and (own := model.bundle.reference())[0]:
        return own
    return samples_of(model, None), []


def _variant(order: dict[str, Any], settings: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Load, first run and warm runs under other engine settings; or why the engine refuses them."""
    tell({"progress": [f"measure with {', '.join(map(str, settings.values()))}", 0, None]})
    bundle = open_bundle(order["path"])
    start = time.perf_counter_ns()
    try:
        model = _under(bundle, settings, order["threads"])
        load_ms = (time.perf_counter_ns() - start) / 1e6
        sample = samples_of(model, order["samples"])[0]
        timings = measure(model.timed(sample), runs=order["runs"] or _VARIANT_RUNS, warmup=order["warmup"])
    except EdgewiseError as error:
        return {"settings": settings, "error": error.parts}
    return {
        "settings": settings,
        "unit": model.facts()["unit"],
        "load_ms": load_ms,
        "first_run_ms": timings.first_ns / 1e6,
        "runs_ms": [ns / 1e6 for ns in timings.runs_ns],
    }


def _under(bundle: Bundle, settings: dict[str, Any], threads: int) -> Model:
    engine = bundle.manifest["engine"]
    changed = {**bundle.manifest, "engine": {**engine, "settings": {**engine.get("settings", {}), **settings}}}
    bundle = replace(bundle, manifest=changed)
    return Model(bundle, open_engine(bundle, RunOptions(threads)))


def main() -> None:
    """Read the order, answer."""
    order = json.loads(sys.argv[1])
    answer(lambda tell: work_there(order, tell))


if __name__ == "__main__":
    main()
