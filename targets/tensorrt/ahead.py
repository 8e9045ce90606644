"""Engines built here for a GPU that is elsewhere: TensorRT for RTX needs none."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
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
)
from edgewise.targets.tensorrt.marking import give_out, marked_notes
from edgewise.targets.tensorrt.prepare import Prepared, normalize, prepare
from edgewise.targets.tensorrt.proof import (
    Product,
    asked_types,
    casts_beside,
    precision_notes,
    products,
    proof,
    require_precision,
)
from edgewise.targets.tensorrt.ranges import largest_values
from edgewise.targets.tensorrt.settings import Settings
from edgewise.targets.tensorrt.sparse import check_sparse, find_masks
from edgewise.targets.tensorrt.vendor import Parsed, captured, parse, readable, tensorrt_rtx, version

ENGINE, ONNX, LAYERS = "model.engine", "model.onnx", "layers.json"
# TensorRT for RTX 1.7 computes every transposed convolution in floats, whatever reads and weights are.
_FLOAT_PRODUCTS = ("ConvTranspose",)
_OPERATION = re.compile(r"operation '([^']+)'")


def build_engine(request: BuildRequest, settings: Settings) -> BuildResult:
    """Write ``model.engine``, the ``model.onnx`` that it was built from, so that it can be checked anywhere, and ``layers.json``.

    Raises:
        TargetError: the parser or the builder refuses; names node, operator and attributes as far as TensorRT does.
        GateError: a product of the engine computes in another type than the graph asks for.
    """
    sparse, sparse_notes = check_sparse(find_masks(request.model), settings.sparse)
    prepared = prepare_request(request, settings)
    marked = give_out(prepared.model, settings.marked)
    data = to_bytes(prepared.model, f"graph {prepared.model.graph.name!r}")
    parsed = parse_or_refuse(data, prepared.model)
    with captured() as messages:
        engine = parsed.builder.build_serialized_network(parsed.network, make_config(parsed.builder, settings, sparse))
        listing, errors = parse_listing(messages.verbose), messages.errors
    if engine is None:
        raise _builder_refused(errors, prepared.model, settings)
    (request.folder / ENGINE).write_bytes(bytes(engine))
    (request.folder / ONNX).write_bytes(data)
    read_back = ReadBack.of(listing, parsed, prepared.model)
    require_precision(read_back.made, told_sms(settings.sms), settings.allow_other_precision)
    write_layers(request.folder / LAYERS, read_back.layers)
    return BuildResult(
        kind="tensorrt",
        files=[ENGINE],
        versions={"tensorrt_rtx": version()},
        layers=read_back.rows,
        settings={
            "library": "tensorrt_rtx",
            "version": version(),
            "sm": settings.sm if len(settings.sms) == 1 else list(settings.sms),
            "precision": settings.precision,
            "tf32": settings.tf32,
            "profiles": settings.profile,
            "engine_built": True,
            "model": ENGINE,
            "onnx": ONNX,
            "listing": LAYERS,
            "allow_other_precision": settings.allow_other_precision,
            "marked": marked,
        },
        notes=[
            *settings.notes,
            *sparse_notes,
            *prepared.notes,
            *float_notes(prepared, settings),
            *marked_notes(settings.marked, marked),
            *read_back.notes,
            *_one_for_all(settings),
        ],
        # The builder numbers temporary tensors of int8 graphs anew each time, and their names stand in the engine.
        varying=[ENGINE, LAYERS] if quantized_products(prepared.model) else [],
        proof=proof(read_back.layers, read_back.made, read_back.source, sparse),
    )


def prepare_request(request: BuildRequest, settings: Settings) -> Prepared:
    """The graph for the parser, with islands of float32 where calibration data comes near the largest float16."""
    ranges = {}
    if settings.calibration and settings.precision == "float16":
        ranges = largest_values(normalize(request.model)[0], settings.calibration, request.preprocess)
    in_floats = _FLOAT_PRODUCTS if settings.builder == "rtx" else ()
    return prepare(request.model, settings.precision, settings.keep_float32, ranges, in_floats)


@dataclass(frozen=True)
class ReadBack:
    """What is known of the engine's layers, from the builder's listing or, without one, from the network definition."""

    layers: list[EngineLayer]
    made: list[Product]
    rows: list[dict[str, str]]
    notes: list[str]
    source: str

    @classmethod
    def of(cls, listing: list[EngineLayer], parsed: Parsed, model: ir.Model) -> ReadBack:
        """The listing, or the plan where somebody else's logger came first in this process and got the listing."""
        ops = {node.name or "": node.op_type for node in model.graph}
        if not listing:
            layers = planned_layers(parsed.network)
            note = "The builder's listing was not available: the layers are those of the network definition."
            return cls(layers, [], manifest_rows(layers, ops, "planned"), [note], "the network definition")
        made = products(listing, asked_types(model), casts_beside(model))
        return cls(listing, made, manifest_rows(listing, ops, "gpu"), precision_notes(made), "the builder's listing")


def write_layers(path: Path, layers: Sequence[EngineLayer]) -> None:
    """The listing as JSON: per layer name, kind, ONNX nodes, types, memory formats and kernel."""
    path.write_text(json.dumps([asdict(layer) for layer in layers], indent=1) + "\n", encoding="utf-8")


def told_sms(sms: Sequence[int]) -> str:
    """``SM86 and SM89``."""
    return " and ".join(f"SM{sm}" for sm in sms)


def _one_for_all(settings: Settings) -> list[str]:
    if len(settings.sms) == 1:
        return []
    return [
        f"One engine for {told_sms(settings.sms)}: it is planned, and its layers are listed, as for SM{settings.sms[0]}."
    ]


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
    """What of a graph in short floats stayed in float32, in one sentence."""
    if settings.precision == "float32" or not prepared.kept:
        return []
    return [f"Kept in float32 in the {settings.precision} graph: {'; '.join(kept_summary(prepared.kept))}."]


def make_config(builder: Any, settings: Settings, sparse: bool) -> Any:
    """TensorRT's builder configuration for the settings."""
    trt = tensorrt_rtx()
    config = builder.create_builder_config()
    config.num_compute_capabilities = len(settings.sms)
    for index, sm in enumerate(settings.sms):
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{sm}"), index)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if not settings.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if sparse:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if settings.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    if settings.profile:
        profile = builder.create_optimization_profile()
        for name, ranges in settings.profile.items():
            profile.set_shape(name, ranges["min"], ranges["opt"], ranges["max"])
        config.add_optimization_profile(profile)
    return config


def _builder_refused(errors: list[str], model: ir.Model, settings: Settings) -> TargetError:
    text = readable(errors[-1]) if errors else "no reason given"
    named = _OPERATION.search(text)
    nodes = [node for node in model.graph if named and node.name and node.name in named[1]]
    float32_products = "GEMM is not supported" in text and settings.precision == "float32"
    return TargetError(
        "TensorRT's builder refuses the network",
        where=told_sms(settings.sms) + (f", {describe_node(nodes[0])}" if nodes else ""),
        found=text,
        expected="operators, types and shapes that it has kernels for",
        fix="Set build.options.precision: float16" if float32_products
        else "Try another shape profile or precision, or rewrite that node (see docs/targets-tensorrt.md)",
    )  # fmt: skip
