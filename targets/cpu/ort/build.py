"""Optimise a graph offline with ONNX Runtime and keep the result as the engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewise.runtime.extras import needs
from edgewise.runtime.onnx_file import to_bytes
from edgewise.runtime.ort_session import unwanted_merges
from edgewise.targets.base import BuildRequest, BuildResult, Target
from edgewise.targets.cpu.ort.layers import integer_notes, read_layers
from edgewise.targets.cpu.ort.support import graph_refused
from edgewise.targets.options import Option, read_options
from edgewise.targets.refusals import refuse_unsupported

if TYPE_CHECKING:
    import onnx_ir as ir

OPTIONS = {
    "format": Option("onnx", str, ("onnx", "ort")),
    "optimization": Option("extended", str, ("basic", "extended", "all")),
}
# Extended fuses operators; only the levels above it choose layouts by the processor that they run on.
_LEVELS = {"basic": "ORT_ENABLE_BASIC", "extended": "ORT_ENABLE_EXTENDED", "all": "ORT_ENABLE_ALL"}
_FATAL_ONLY = 4
_OPSET_NOT_EXACT = 21
_NARROW = 64  # 2 x 64 x 255 is below 2^15


def build_engine(target: Target, request: BuildRequest) -> BuildResult:
    """Write ``model.onnx`` (or ``model.ort``) into the request's folder.

    Raises:
        TargetError: an unknown option, or a node that ONNX Runtime does not take.
    """
    options = read_options(request.options, OPTIONS, target.name)
    refuse_unsupported(target, request)
    name = f"model.{options['format']}"
    source = to_bytes(request.model, f"graph {request.model.graph.name!r}")
    draft = request.folder / "optimized.onnx"
    _optimize(request.model, source, draft, _LEVELS[options["optimization"]])
    optimized = _tidy(draft)
    draft.unlink()
    if options["format"] == "onnx":
        (request.folder / name).write_bytes(optimized.SerializeToString(deterministic=True))
    else:
        _optimize(request.model, optimized.SerializeToString(), request.folder / name, "ORT_DISABLE_ALL", "ORT")
    layers = read_layers(optimized)
    exact = _has_wide_weights(optimized)
    notes = _option_notes(options) + integer_notes(optimized, layers) + (_saturation_notes(optimized) if exact else [])
    rows = [{"name": layer.name, "op": layer.op, "precision": layer.precision, "unit": "cpu"} for layer in layers]
    return BuildResult(
        kind="onnxruntime",
        files=[name],
        versions=_versions(),
        layers=rows,
        settings={
            "model": name,
            **options,
            **({"left_out": merges} if (merges := unwanted_merges(request.model)) else {}),
            **({"exact_products": True} if exact else {}),
        },
        notes=notes,
        # ONNX Runtime orders the tables of its own format at random.
        varying=[name] if options["format"] == "ort" else [],
    )


def _optimize(model: ir.Model, source: bytes, path: Path, level: str, save_as: str = "ONNX") -> None:
    with needs("cpu"):
        import onnxruntime as ort
    settings = ort.SessionOptions()
    settings.log_severity_level = _FATAL_ONLY
    settings.intra_op_num_threads = 1
    settings.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    settings.optimized_model_filepath = str(path)
    settings.add_session_config_entry("session.save_model_format", save_as)
    disabled = _unwanted_rewrites(model)
    try:
        ort.InferenceSession(source, settings, providers=["CPUExecutionProvider"], disabled_optimizers=disabled)
    except Exception as error:  # its exceptions have no base class of their own
        # A full disk is an OSError here; from ONNX Runtime it is a "protobuf serialization failed".
        path.write_bytes(source)
        raise graph_refused(model, " ".join(str(error).split())) from error


def _unwanted_rewrites(model: ir.Model) -> list[str]:
    """ONNX Runtime's optimizers that would work against a quantized graph."""
    if not any(map(_dequantizes, model.graph)):
        return []
    # It makes a Gemm of MatMul and Add before Q and DQ are fused, with a float bias, for which there is no integer Gemm:
    # where shapes are fixed, a quantized transformer would compute in float.
    unwanted = ["MatMulAddFusion", *unwanted_merges(model)]
    if any(_kept_float(node) for node in model.graph):
        # It quantizes float weights by itself, and takes no notice that a layer was kept in float on purpose.
        unwanted.append("WeightBiasQuantization")
    return unwanted


def _dequantizes(node: ir.Node | None) -> bool:
    return node is not None and node.op_type == "DequantizeLinear"


def _has_wide_weights(proto: Any) -> bool:
    """Whether two of the weights in int8, times 255 each, may exceed 16 bits: x86 without VNNI adds two products there, and they saturate."""
    with needs("graph"):
        import onnx
    integers = [tensor for tensor in proto.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    return any(
        np.abs(onnx.numpy_helper.to_array(tensor), dtype=np.int16).max(initial=0) > _NARROW for tensor in integers
    )


def _saturation_notes(proto: Any) -> list[str]:
    """ONNX Runtime 1.31 makes u8 of s8 weights on such a processor, but in QLinearMatMul as it was before opset 21."""
    opset = max(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < _OPSET_NOT_EXACT or not any(node.op_type == "QLinearMatMul" for node in proto.graph.node):
        return []
    return [
        f"QLinearMatMul of opset {opset} has weights in 8 bits: its products saturate on x86 without VNNI. "
        "Build for x86-64-v3 there, from the float network."
    ]


def _kept_float(node: ir.Node) -> bool:
    """A layer with float weights that reads dequantized integers."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm") or node.inputs[0] is None or node.inputs[1] is None:
        return False
    return _dequantizes(node.inputs[0].producer()) and not _dequantizes(node.inputs[1].producer())


def _tidy(path: Path) -> Any:
    """Read the optimised model back, without what would stop another ONNX Runtime or only costs bytes.

    ONNX Runtime declares every domain that it was built with, some of which another build does not know.
    """
    with needs("graph"):
        import onnx
    proto = onnx.load(str(path))
    used = _domains(proto.graph) | {function.domain for function in proto.functions}
    kept = [entry for entry in proto.opset_import if entry.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(sorted(kept, key=lambda entry: str(entry.domain)))
    for node in proto.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    return proto


def _domains(graph: Any) -> set[str]:
    found = {""} | {node.domain for node in graph.node}
    for node in graph.node:
        for attribute in node.attribute:
            for body in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                found |= _domains(body)
    return found


def _option_notes(options: dict[str, Any]) -> list[str]:
    if options["optimization"] != "all":
        return []
    return [
        "optimization: all chose layouts for the processor of the machine that built it; "
        "on another processor the engine may be slow or refuse to load."
    ]


def _versions() -> dict[str, str]:
    with needs("cpu"):
        import onnxruntime as ort
    return {"onnxruntime": str(ort.__version__)}
