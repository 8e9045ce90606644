"""Engines built here for a GPU that is elsewhere: TensorRT for RTX needs none."""

from __future__ import annotations

import re
from typing import Any

import onnx_ir as ir

from edgewise.quantize.passes.cast_floats import kept_summary
from edgewise.runtime.onnx_file import to_bytes
from edgewise.targets.base import BuildRequest, BuildResult
from edgewise.targets.errors import TargetError
from edgewise.targets.tensorrt.engine_layers import (
    EngineLayer,
    manifest_rows,
    parse_listing,
    planned_layers,
    precision_notes,
)
from edgewise.targets.tensorrt.prepare import Prepared, prepare
from edgewise.targets.tensorrt.settings import Settings
from edgewise.targets.tensorrt.vendor import Parsed, captured, parse, readable, tensorrt_rtx, version

ENGINE, ONNX = "model.engine", "model.onnx"
_OPERATION = re.compile(r"operation '([^']+)'")


def build_engine(request: BuildRequest, settings: Settings) -> BuildResult:
    """Write ``model.engine`` and beside it the ``model.onnx`` that it was built from, so that it can be checked anywhere.

    Raises:
        TargetError: the parser or the builder refuses; names node, operator and attributes as far as TensorRT does.
    """
    prepared = prepare(request.model, settings.precision, settings.keep_float32)
    data = to_bytes(prepared.model, f"graph {prepared.model.graph.name!r}")
    parsed = parse_or_refuse(data, prepared.model)
    with captured() as messages:
        engine = parsed.builder.build_serialized_network(parsed.network, make_config(parsed.builder, settings))
        listing, errors = parse_listing(messages.verbose), messages.errors
    if engine is None:
        raise _builder_refused(errors, prepared.model, settings)
    (request.folder / ENGINE).write_bytes(bytes(engine))
    (request.folder / ONNX).write_bytes(data)
    rows, notes = _read_back(listing, parsed, prepared, settings)
    return BuildResult(
        kind="tensorrt",
        files=[ENGINE],
        versions={"tensorrt_rtx": version()},
        layers=rows,
        settings={
            "library": "tensorrt_rtx",
            "version": version(),
            "sm": settings.sm,
            "precision": settings.precision,
            "tf32": settings.tf32,
            "profiles": settings.profile,
            "engine_built": True,
            "model": ENGINE,
            "onnx": ONNX,
        },
        notes=[*settings.notes, *notes],
        # The builder numbers temporary tensors of int8 graphs anew each time, and their names stand in the engine.
        varying=[ENGINE] if quantized_products(prepared.model) else [],
    )


def parse_or_refuse(data: bytes, model: ir.Model) -> Parsed:
    """Parse, or raise what the parser says.

    Raises:
        TargetError: names the first refused node, its operator and its attributes.
    """
    parsed = parse(data)
    if not parsed.refusals:
        return parsed
    first = parsed.refusals[0]
    nodes = list(model.graph)
    raise TargetError(
        "TensorRT's parser refuses the graph",
        where=describe_node(nodes[first.index]) if 0 <= first.index < len(nodes) else f"graph {model.graph.name!r}",
        found=first.reason,
        expected="operators, attributes and types that TensorRT has",
        fix="Rewrite that node (see docs/targets-tensorrt.md), or choose another target",
    )


def describe_node(node: ir.Node) -> str:
    """Name, operator and attributes of a node, for an error."""
    attributes = ", ".join(f"{name}={attribute.value!r}" for name, attribute in node.attributes.items())
    return f"node {node.name!r}, operator {node.op_type}" + (f", attributes {attributes}" if attributes else "")


def quantized_products(model: ir.Model) -> set[str]:
    """Names of the nodes all of whose first two inputs come from DequantizeLinear, casts between aside."""

    def dequantized(value: ir.Value | None) -> bool:
        producer = value.producer() if value is not None else None
        while producer is not None and producer.op_type == "Cast":
            source = producer.inputs[0]
            producer = source.producer() if source is not None else None
        return producer is not None and producer.op_type == "DequantizeLinear"

    return {node.name or "" for node in model.graph if len(node.inputs) > 1 and all(map(dequantized, node.inputs[:2]))}


def float_notes(prepared: Prepared, settings: Settings) -> list[str]:
    """What of a float16 graph stayed in float32, in one sentence."""
    if settings.precision == "float32" or not prepared.kept:
        return []
    return [f"Kept in float32 in the float16 graph: {'; '.join(kept_summary(prepared.kept))}."]


def make_config(builder: Any, settings: Settings) -> Any:
    """TensorRT's builder configuration for the settings."""
    trt = tensorrt_rtx()
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{settings.sm}"), 0)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if not settings.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if settings.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    if settings.profile:
        profile = builder.create_optimization_profile()
        for name, ranges in settings.profile.items():
            profile.set_shape(name, ranges["min"], ranges["opt"], ranges["max"])
        config.add_optimization_profile(profile)
    return config


def _read_back(
    listing: list[EngineLayer], parsed: Parsed, prepared: Prepared, settings: Settings
) -> tuple[list[dict[str, str]], list[str]]:
    ops = {node.name or "": node.op_type for node in prepared.model.graph}
    notes = float_notes(prepared, settings)
    if not listing:  # somebody else's logger came first in this process, and got the listing
        rows = manifest_rows(planned_layers(parsed.network), ops, "planned")
        return rows, [
            *notes,
            "The builder's listing was not available: the layers are those of the network definition.",
        ]
    notes += precision_notes(listing, ops, quantized_products(prepared.model), settings.precision)
    return manifest_rows(listing, ops, "gpu"), notes


def _builder_refused(errors: list[str], model: ir.Model, settings: Settings) -> TargetError:
    text = readable(errors[-1]) if errors else "no reason given"
    named = _OPERATION.search(text)
    nodes = [node for node in model.graph if named and node.name and node.name in named[1]]
    float32_products = "GEMM is not supported" in text and settings.precision == "float32"
    return TargetError(
        "TensorRT's builder refuses the network",
        where=f"SM{settings.sm}" + (f", {describe_node(nodes[0])}" if nodes else ""),
        found=text,
        expected="operators, types and shapes that it has kernels for",
        fix="Set build.options.precision: float16" if float32_products
        else "Try another shape profile or precision, or rewrite that node (see docs/targets-tensorrt.md)",
    )  # fmt: skip
