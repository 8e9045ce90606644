"""The build: prepare, convert, compile, read back; for a package of several functions each in turn, then together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgewise.runtime.tensors import batch_dim, long_dims
from edgewise.targets.base import BuildRequest, BuildResult
from edgewise.targets.coreml.classifier import settings as classifier_settings
from edgewise.targets.coreml.compile import PACKAGE, compile_package
from edgewise.targets.coreml.convert import Converted, convert
from edgewise.targets.coreml.functions import entry_of, function_models, join, parts_folder, symbols_of
from edgewise.targets.coreml.images import image_inputs
from edgewise.targets.coreml.interface import Interface
from edgewise.targets.coreml.judge import judge
from edgewise.targets.coreml.logarithms import before_logarithms
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.options import Choice, Options, Range, parse_options, wrong_option
from edgewise.targets.coreml.overflow import kept_by_data
from edgewise.targets.coreml.prepare import nodes_of, opset_of, prepare
from edgewise.targets.coreml.quiet import load_coremltools, quietly
from edgewise.targets.coreml.readback import layers_of, notes_of
from edgewise.targets.nodes import tensor_spec

# Heights and widths of images, and samples of a sound, where nothing says how many there may be.
_RANGES = {"side": Range(32, 512, 224), "signal": Range(1_600, 160_000, 16_000)}


@dataclass(frozen=True)
class Made:
    """One function's package: what was converted, and what it is to the outside."""

    package: Path
    converted: Converted
    interface: Interface

    @property
    def ports(self) -> dict[str, Any]:
        """For the engine's settings."""
        return self.interface.settings() | classifier_settings(self.converted.labels)


def build(request: BuildRequest) -> BuildResult:
    """Build the package; see ``CoreMLTarget.build``."""
    options = parse_options(request.options, request.device)
    ct = load_coremltools()
    if not options.functions:
        options, notes = _with_sizes(request.model, options)
        made = _make(request.model, options, request.folder, request.preprocess)
        return _result(request, options, ct.__version__, notes + made.converted.notes, made.ports, options.fixed_dims)
    return _build_functions(request, options, ct.__version__)


def _with_sizes(model: ir.Model, options: Options) -> tuple[Options, list[str]]:
    """Sizes for the dims of which the options say nothing, and what was fixed: a batch is; other dims keep a range."""
    specs = [tensor_spec(value) for value in model.graph.inputs]
    chosen: dict[str, int | Range | Choice] = {dim: _RANGES[kind] for dim, kind in long_dims(specs).items()}
    notes = []
    batch = batch_dim(specs)
    if batch is not None and batch not in (*chosen, *options.dims):
        chosen[batch] = 1
        notes.append(
            f"dim {batch!r} is fixed at 1, for Core ML is fastest with fixed shapes; build.options.dims.{batch} gives others"
        )
    return replace(options, dims=chosen | dict(options.dims)), notes


def _build_functions(request: BuildRequest, options: Options, version: str) -> BuildResult:
    """The first function is the network itself, as the bundle's interface has it."""
    models = function_models(request.model, options)
    sized = {name: _with_sizes(model, options.of_function(name, symbols_of(model))) for name, model in models.items()}
    own = {name: chosen for name, (chosen, _) in sized.items()}
    made: dict[str, Made] = {}
    with parts_folder() as parts:
        for name, model in models.items():
            (Path(parts) / name).mkdir()
            made[name] = _make(model, own[name], Path(parts) / name, request.preprocess)
        with quietly():
            join({name: part.package for name, part in made.items()}, request.folder / PACKAGE)
    first, *others = models
    notes = [
        f"function {name!r}: {note}" for name, part in made.items() for note in sized[name][1] + part.converted.notes
    ]
    own_ports = {name: made[name].ports for name in others}
    settings = {**made[first].ports, "default_function": first, "functions": own_ports}
    result = _result(request, options, version, notes, settings, own[first].fixed_dims)
    entries = [entry_of(name, models[name], own[name], request.folder) for name in others]
    return replace(result, functions=entries)


def _make(model: ir.Model, options: Options, folder: Path, preprocess: dict[str, Any] | None) -> Made:
    _check_dims(model, options)
    ready = prepare(model, options.ios, options.fixed_dims)
    for node in nodes_of(ready):
        view = NodeView(node, opset_of(ready), options.ios)
        refusal = judge(view)
        if refusal is not None:
            raise refusal.error(view.label, view.op)
    if options.half:
        kept = before_logarithms(ready.graph)
        if options.calibration:
            so_far = replace(options, keep_float32=(*options.keep_float32, *kept))
            kept += kept_by_data(model, ready, so_far, preprocess)
        options = replace(options, keep_float32=(*options.keep_float32, *kept))
    interface = Interface(ready.graph, options, image_inputs(ready.graph, options, preprocess))
    with quietly():
        converted = convert(ready, options, interface)
        return Made(compile_package(converted, options, folder), converted, interface)


def _result(
    request: BuildRequest, options: Options, version: str, notes: list[str], ports: dict[str, Any], dims: dict[str, int]
) -> BuildResult:
    package = request.folder / PACKAGE
    layers = layers_of(package)
    files = sorted(file.relative_to(request.folder).as_posix() for file in package.rglob("*") if file.is_file())
    settings = {
        "package": PACKAGE,
        "minimum_deployment_target": f"iOS{options.ios}",
        "compute_precision": "float16" if options.half else "float32",
    }
    return BuildResult(
        kind="coreml",
        files=files,
        versions={"coremltools": version},
        layers=layers,
        settings=settings | ports,
        notes=notes + notes_of(layers, options),
        dims=dims,
    )


def _check_dims(model: ir.Model, options: Options) -> None:
    symbols = symbols_of(model)
    for name in options.dims:
        if name not in symbols:
            named = ", ".join(sorted(symbols)) or "none: all are fixed"
            raise wrong_option(f"dims.{name}", "no such dim in the inputs", f"one of the symbolic dims ({named})")
