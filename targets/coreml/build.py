"""The build: prepare, convert, compile, read back."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from edgewise.targets.base import BuildRequest, BuildResult
from edgewise.targets.coreml.classifier import settings as classifier_settings
from edgewise.targets.coreml.compile import compile_package
from edgewise.targets.coreml.convert import convert
from edgewise.targets.coreml.images import image_inputs
from edgewise.targets.coreml.interface import Interface
from edgewise.targets.coreml.judge import judge
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.options import Options, parse_options, wrong_option
from edgewise.targets.coreml.overflow import kept_by_data
from edgewise.targets.coreml.prepare import nodes_of, opset_of, prepare
from edgewise.targets.coreml.quiet import load_coremltools, quietly
from edgewise.targets.coreml.readback import layers_of, notes_of


def build(request: BuildRequest) -> BuildResult:
    """Build the package; see ``CoreMLTarget.build``."""
    options = parse_options(request.options, request.device)
    _check_dims(request.model, options)
    ready = prepare(request.model, options.ios, options.fixed_dims)
    for node in nodes_of(ready):
        view = NodeView(node, opset_of(ready), options.ios)
        refusal = judge(view)
        if refusal is not None:
            raise refusal.error(view.label, view.op)
    if options.half and options.calibration:
        beyond = kept_by_data(request.model, ready, options, request.preprocess)
        options = replace(options, keep_float32=(*options.keep_float32, *beyond))
    images = image_inputs(ready.graph, options, request.preprocess)
    interface = Interface(ready.graph, options, images)
    ct = load_coremltools()
    with quietly():
        converted = convert(ready, options, interface)
        package = compile_package(converted, options, request.folder)
        layers = layers_of(package)
    files = sorted(file.relative_to(request.folder).as_posix() for file in package.rglob("*") if file.is_file())
    return BuildResult(
        kind="coreml",
        files=files,
        versions={"coremltools": ct.__version__},
        layers=layers,
        settings=_settings(package.name, options, interface) | classifier_settings(converted.labels),
        notes=converted.notes + notes_of(layers, options),
    )


def _check_dims(model: ir.Model, options: Options) -> None:
    symbols = {
        dim.value for value in model.graph.inputs for dim in value.shape or () if isinstance(dim, ir.SymbolicDim)
    }
    for name in options.dims:
        if name not in symbols:
            named = ", ".join(sorted(str(symbol) for symbol in symbols)) or "none: all are fixed"
            raise wrong_option(f"dims.{name}", "no such dim in the inputs", f"one of the symbolic dims ({named})")


def _settings(package: str, options: Options, interface: Interface) -> dict[str, object]:
    return {
        "package": package,
        "minimum_deployment_target": f"iOS{options.ios}",
        "compute_precision": "float16" if options.half else "float32",
        **interface.settings(),
    }
