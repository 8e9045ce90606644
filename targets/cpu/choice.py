"""Which engine runs a network on a processor: libedgewise, ONNX Runtime, or the faster of the two."""

from __future__ import annotations

import dataclasses
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from edgewise.runtime.bundle import create_bundle
from edgewise.runtime.data import random_data
from edgewise.runtime.errors import RunError
from edgewise.runtime.model import Model, load
from edgewise.targets.base import Arrays, BuildRequest, BuildResult, Target
from edgewise.targets.cpu.native.build import build_native
from edgewise.targets.cpu.native.compile import NotTakenError
from edgewise.targets.cpu.ort.build import OPTIONS as ORT_OPTIONS
from edgewise.targets.cpu.ort.build import build_engine
from edgewise.targets.errors import TargetError
from edgewise.targets.nodes import tensor_spec
from edgewise.targets.options import Option, read_options

OPTIONS = {
    "engine": Option(None, str, ("native", "onnxruntime", "auto")),
    "precision": Option("float32", str, ("float32", "bfloat16")),
    "max_dims": Option(None, dict),
    **ORT_OPTIONS,
}
_ROUNDS = 15
_TIMED_SIZE = 64  # of every dim that depends on the inputs


def build(target: Target, request: BuildRequest) -> BuildResult:
    """Build the engine that ``options.engine`` asks for.

    ``native``, the default: libedgewise, and ONNX Runtime where it does not take the network, with a note that names the node.
    ``auto``: both are built and timed on this machine, and the faster one is kept. Who sets an option of ONNX Runtime's own and
    names no engine gets ONNX Runtime.

    Raises:
        TargetError: an unknown option, bfloat16 without ``native``, or a node that ONNX Runtime does not take.
    """
    options = read_options(request.options, OPTIONS, target.name)
    engine, brain = options.pop("engine") or _default(request), options.pop("precision") == "bfloat16"
    if brain and engine != "native":
        raise TargetError(
            "ONNX Runtime has no bfloat16 kernels", where=f"target {target.name}, build.options", found=f"engine {engine}, precision bfloat16",
            expected="engine native for precision bfloat16", fix="Set build.options.engine to native, or leave the precision out",
        )  # fmt: skip
    limits = _limits(request, options.pop("max_dims"), target.name)
    if limits and engine != "native":
        raise TargetError(
            "only libedgewise holds a network to the largest dims", where=f"target {target.name}, build.options", found=f"engine {engine}, max_dims {limits}",
            expected="engine native for max_dims", fix="Set build.options.engine to native, or leave max_dims out",
        )  # fmt: skip
    ort_request = dataclasses.replace(request, options=options)
    if engine == "onnxruntime":
        return build_engine(target, ort_request)
    try:
        if engine == "native":
            return build_native(request, brain=brain, limits=limits)
        return _faster(target, request, ort_request)
    except NotTakenError as error:
        result = build_engine(target, ort_request)
        where = "in float32, not in bfloat16" if brain else ""
        note = f"The native engine does not take the network, so ONNX Runtime runs it{where and ' ' + where}: {error}."
        if limits:
            note += " ONNX Runtime does not refuse dims above max_dims."
        return dataclasses.replace(result, notes=[note, *result.notes])


def _limits(request: BuildRequest, given: dict[str, Any] | None, target: str) -> dict[str, int]:
    """The largest dims by name, each one that an input leaves open."""
    free = {size for value in request.model.graph.inputs for size in tensor_spec(value).shape if isinstance(size, str)}
    for name, most in (given or {}).items():
        if name not in free or not isinstance(most, int) or isinstance(most, bool) or most < 1:
            raise TargetError(
                "a largest dim is none", where=f"target {target}, build.options.max_dims", found=f"{name}: {most!r}",
                expected=f"a whole number from 1 on, for one of {', '.join(sorted(free))}" if free else "none: no dim of the inputs is open",
                fix="Correct it; --input NAME=f32[N,3,224,224] leaves a dim open under a name",
            )  # fmt: skip
    return dict(given or {})


def _default(request: BuildRequest) -> str:
    """The engine when none is named; what was measured has no say, so that the same network gives the same bundle."""
    return "onnxruntime" if any(request.options.get(name) is not None for name in ORT_OPTIONS) else "native"


def _faster(target: Target, request: BuildRequest, ort_request: BuildRequest) -> BuildResult:
    """Both engines in folders of their own; the files of the faster one move into the request's folder."""
    drafts = {name: request.folder / name for name in ("native", "onnxruntime")}
    for folder in drafts.values():
        folder.mkdir()
    try:
        results = {
            "native": build_native(dataclasses.replace(request, folder=drafts["native"])),
            "onnxruntime": build_engine(target, dataclasses.replace(ort_request, folder=drafts["onnxruntime"])),
        }
        best, note = _compare(request, drafts, results)
        for name in results[best].files:
            shutil.move(drafts[best] / name, request.folder / name)
    finally:
        for folder in drafts.values():
            shutil.rmtree(folder)
    return dataclasses.replace(results[best], notes=[note, *results[best].notes])


def _compare(request: BuildRequest, drafts: dict[str, Path], results: dict[str, BuildResult]) -> tuple[str, str]:
    """The faster engine on this machine, and the sentence that says so."""
    models = {}
    for name, result in results.items():
        try:
            models[name] = load(_bundle(request, drafts[name], result), threads=1)
        except RunError as error:
            other = next(one for one in results if one != name)
            return other, f"Engine {other}: this machine cannot open the other one ({error.what}: {error.found})."
    specs = [tensor_spec(value) for value in request.model.graph.inputs]
    sample = next(iter(random_data(specs, 1, dynamic=_TIMED_SIZE))).inputs
    medians = time_models(models, sample)
    best = min(medians, key=lambda name: medians[name])
    told = ", ".join(f"{name} {value:.3g} ms" for name, value in medians.items())
    return best, f"Engine {best}, the faster one on this machine with one thread: {told}."


def time_models(models: dict[str, Model], sample: Arrays) -> dict[str, float]:
    """The median run of each in milliseconds, taken in turns so that a disturbance meets all."""
    for model in models.values():
        model.run(sample)
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(_ROUNDS):
        for name, model in models.items():
            start = time.perf_counter()
            model.run(sample)
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(found) for name, found in times.items()}


def _bundle(request: BuildRequest, folder: Path, result: BuildResult) -> Path:
    """A bundle of an engine alone, to time it as an app would run it."""
    path = folder / "timed.edge"
    graph = request.model.graph
    with create_bundle(path) as (draft, manifest):
        for name in result.files:
            shutil.copy2(folder / name, draft / name)
        told: dict[str, Any] = {
            "inputs": [tensor_spec(value).to_json() for value in graph.inputs],
            "outputs": [tensor_spec(value).to_json() for value in graph.outputs],
            "target": "cpu",
            "device": request.device.name,
            "engine": dataclasses.asdict(result),
        }
        manifest |= told
    return path
