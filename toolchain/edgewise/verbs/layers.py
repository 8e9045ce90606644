"""Layer by layer: the tensors that an engine's ONNX graph and the source's have in common, and the first that diverges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewise.errors import ToolchainError
from edgewise.runtime.bundle import Bundle, open_bundle
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_file import read_onnx
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.progress import Progress, silent
from edgewise.stages.inputs import find_source
from edgewise.stages.network import Arrays
from edgewise.stages.verify import FLOAT_MIN_SQNR_DB
from edgewise.verbs.opened import SourceOptions
from edgewise.verbs.result import is_bundle

if TYPE_CHECKING:
    import onnx_ir as ir

# Inner tensors are held in memory; this many at a time.
_AT_ONCE = 32
# What the quantizer calls a tensor after rounding; ONNX Runtime keeps the name.
_ROUNDED = "_QuantizeLinear_output"


def compare_layers(
    bundle: Bundle,
    against: str | Path | None,
    options: SourceOptions,
    sample: Arrays,
    threshold: float | None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Compare inner tensors for one sample, in the order in which the source computes them.

    Returns:
        ``layers`` (name, op, max_abs_error, sqnr_db, cosine …), ``first_diverging`` (the first below the threshold, or
        None) and ``layer_threshold_db``.

    Raises:
        ToolchainError: no source, an engine that is no ONNX graph, or graphs without a tensor in common.
    """
    if against is None:
        raise _impossible("--per-layer", "no source", "--against SOURCE")
    engine = _engine_graph(bundle)
    source = _source_graph(bundle, against, options)
    made = _inner_tensors(engine)
    names = [str(value.name) for node in source.graph for value in node.outputs if value.name in made]
    if not names:
        found = "no inner tensor of the same name in both"
        raise _impossible(str(against), found, "the network that the bundle was made from")
    limit = FLOAT_MIN_SQNR_DB if threshold is None else threshold
    layers = []
    for start in range(0, len(names), _AT_ONCE):
        chosen = {name: made[name] for name in names[start : start + _AT_ONCE]}
        layers += _compare(source, engine, chosen, sample)
        progress("compare layers", min(start + _AT_ONCE, len(names)), len(names))
    first = next((layer for layer in layers if not layer["exact"] and (layer["sqnr_db"] or -np.inf) < limit), None)
    return {"layers": layers, "first_diverging": first, "layer_threshold_db": limit}


@dataclass(frozen=True)
class _Tensor:
    """A tensor of the engine's graph; one in integers has a scale and a zero point."""

    name: str
    scale: np.ndarray | None = None
    zero_point: np.ndarray | None = None

    def real(self, values: np.ndarray) -> np.ndarray:
        """What its values stand for."""
        if self.scale is None:
            return values
        zero = 0 if self.zero_point is None else self.zero_point.astype(np.int32)
        return np.asarray((values.astype(np.int32) - zero) * self.scale, np.float32)


def _inner_tensors(engine: ir.Model) -> dict[str, _Tensor]:
    """By the name that the source's graph knows them under; a float tensor goes before its rounded twin."""
    found: dict[str, _Tensor] = {}
    for value in (value for node in engine.graph for value in node.outputs if value.name):
        name = str(value.name)
        if name.endswith(_ROUNDED):
            scale, zero_point = _scale_of(value)
            if scale is not None and scale.size == 1:
                found.setdefault(name.removesuffix(_ROUNDED), _Tensor(name, scale, zero_point))
        elif value.dtype is None or value.dtype.is_floating_point():
            found[name] = _Tensor(name)
    return found


def _scale_of(value: ir.Value) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Whatever reads an integer tensor (DequantizeLinear, QLinear…) takes its scale and zero point as the next two inputs."""
    for node, index in value.uses():
        if "Linear" in node.op_type and index + 2 < len(node.inputs):
            scale, zero_point = (_constant(node.inputs[index + offset]) for offset in (1, 2))
            if scale is not None:
                return scale, zero_point
    return None, None


def _constant(value: ir.Value | None) -> np.ndarray | None:
    return None if value is None or value.const_value is None else value.const_value.numpy()


def _compare(source: ir.Model, engine: ir.Model, tensors: dict[str, _Tensor], sample: Arrays) -> list[dict[str, Any]]:
    wanted = OnnxRunner(source, outputs=list(tensors), optimize=False).run(sample)
    made = OnnxRunner(engine, outputs=[tensor.name for tensor in tensors.values()], optimize=False).run(sample)
    real = {name: tensor.real(made[tensor.name]) for name, tensor in tensors.items()}
    ops = {value.name: node.op_type for node in source.graph for value in node.outputs}
    return [
        {"op": ops[name], **compare_outputs([{name: wanted[name]}], [{name: real[name]}])[0].to_json()}
        for name in tensors
        # An engine may keep a tensor in another layout; that says nothing of its numbers.
        if wanted[name].shape == real[name].shape and real[name].dtype.kind == wanted[name].dtype.kind == "f"
    ]


def _engine_graph(bundle: Bundle) -> ir.Model:
    graphs = [name for name in bundle.manifest["engine"]["files"] if name.endswith(".onnx")]
    if len(graphs) != 1:
        found = f"an engine of the kind {bundle.manifest['engine'].get('kind')!r}"
        raise _impossible(
            str(bundle.path),
            found,
            "an engine that is an ONNX graph, such as that of --target cpu --engine onnxruntime",
        )
    return read_onnx(bundle.file(graphs[0]))


def _source_graph(bundle: Bundle, against: str | Path, options: SourceOptions) -> ir.Model:
    if is_bundle(against):
        return _engine_graph(open_bundle(against))
    if Path(against).suffix == ".onnx":
        return read_onnx(against)
    from edgewise.exporter import export

    source = find_source(options.recipe(against), trust_pickle=options.trust_pickle)
    opset = bundle.manifest.get("network", {}).get("opset") or 18
    model: ir.Model = export(source, opset=opset, verify=False).model
    return model


def _impossible(where: str, found: str, expected: str) -> ToolchainError:
    return ToolchainError(
        "cannot compare layer by layer",
        where=where,
        found=found,
        expected=expected,
        fix="Leave --per-layer out to compare the outputs alone",
    )
