"""Layer by layer: the tensors that an engine and the source's graph have in common, and the first that diverges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgewise.errors import ToolchainError
from edgewise.runtime.bundle import Bundle, open_bundle
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.errors import MissingExtraError, RunError
from edgewise.runtime.model import Model, load
from edgewise.runtime.onnx_file import read_onnx
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.onnx_widen import widen_bfloat16
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
        ToolchainError: no source, an engine that gives out no inner tensor, or none that the source has too.
    """
    if against is None:
        raise _impossible("--per-layer", "no source", "--against SOURCE")
    engine = _engine(bundle)
    source = _source_graph(bundle, against, options)
    known = set(engine.names())
    names = [str(value.name) for node in source.graph for value in node.outputs if value.name in known]
    if not names:
        found = "no inner tensor of the same name in both"
        raise _impossible(str(against), found, "the network that the bundle was made from")
    limit = FLOAT_MIN_SQNR_DB if threshold is None else threshold
    layers = []
    for start in range(0, len(names), _AT_ONCE):
        chosen = names[start : start + _AT_ONCE]
        layers += _compare(source, chosen, sample, engine.inner(sample, chosen))
        progress("compare layers", min(start + _AT_ONCE, len(names)), len(names))
    first = next((layer for layer in layers if not layer["exact"] and (layer["sqnr_db"] or -np.inf) < limit), None)
    return {"layers": layers, "first_diverging": first, "layer_threshold_db": limit}


class _Inside(Protocol):
    """What gives out inner tensors under the network's names."""

    def names(self) -> list[str]: ...

    def inner(self, sample: Arrays, names: list[str]) -> Arrays: ...


class _OfEngine:
    """An engine that gives them out itself, and the network's outputs."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._outputs = [spec.name for spec in model.outputs]

    def names(self) -> list[str]:
        return [*self._model.inner_names(), *self._outputs]

    def inner(self, sample: Arrays, names: list[str]) -> Arrays:
        outputs = self._model.run(sample) if set(names) & set(self._outputs) else {}
        return self._model.inner(sample, [name for name in names if name not in outputs]) | outputs


class _OfGraph:
    """An engine that is an ONNX graph; whatever is inside can be made an output."""

    def __init__(self, graph: ir.Model) -> None:
        self._graph, self._tensors = graph, _inner_tensors(graph)

    def names(self) -> list[str]:
        return list(self._tensors)

    def inner(self, sample: Arrays, names: list[str]) -> Arrays:
        tensors = {name: self._tensors[name] for name in names}
        made = OnnxRunner(self._graph, outputs=[tensor.name for tensor in tensors.values()], optimize=False).run(sample)
        return {name: tensor.real(made[tensor.name]) for name, tensor in tensors.items()}


def _engine(bundle: Bundle) -> _Inside:
    named = bundle.manifest["engine"].get("settings", {}).get("model")
    if (graphs := _graphs(bundle)) and (named is None or named in graphs):
        return _OfGraph(_engine_graph(bundle))
    try:
        model = load(bundle.path)
    except (RunError, MissingExtraError):
        if (graph := _stand_in(bundle)) is None:
            raise
        return _OfGraph(graph)
    if not model.inner_names():
        raise _without_inner(bundle)
    return _OfEngine(model)


def _stand_in(bundle: Bundle) -> ir.Model | None:
    """What the target runs in the place of an engine that cannot run here, where it is a graph."""
    from edgewise.targets import Executor, find_target

    executor = find_target(bundle.manifest["target"]).executor(bundle)
    return executor.graph if isinstance(executor, Executor) else None


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


def _compare(source: ir.Model, names: list[str], sample: Arrays, made: Arrays) -> list[dict[str, Any]]:
    wanted = OnnxRunner(source, outputs=names, optimize=False).run(sample)
    ops = {value.name: node.op_type for node in source.graph for value in node.outputs}
    return [
        {"op": ops[name], **compare_outputs([{name: wanted[name]}], [{name: made[name]}])[0].to_json()}
        for name in names
        # An engine may keep a tensor in another layout; that says nothing of its numbers.
        if wanted[name].shape == made[name].shape and made[name].dtype.kind == wanted[name].dtype.kind == "f"
    ]


def _graphs(bundle: Bundle) -> list[str]:
    return [name for name in bundle.manifest["engine"]["files"] if name.endswith(".onnx")]


def _engine_graph(bundle: Bundle) -> ir.Model:
    graphs = _graphs(bundle)
    if len(graphs) != 1:
        raise _without_inner(bundle)
    return read_onnx(bundle.file(graphs[0]))


def _source_graph(bundle: Bundle, against: str | Path, options: SourceOptions) -> ir.Model:
    if is_bundle(against):
        return _engine_graph(open_bundle(against))
    if Path(against).suffix == ".onnx":
        graph = read_onnx(against)
        widen_bfloat16(graph)  # as the exporter takes it
        return graph
    from edgewise.exporter import export

    source = find_source(options.recipe(against), trust_pickle=options.trust_pickle)
    opset = bundle.manifest.get("network", {}).get("opset") or 18
    model: ir.Model = export(source, opset=opset, verify=False).model
    return model


def _without_inner(bundle: Bundle) -> ToolchainError:
    return _impossible(
        str(bundle.path),
        f"an engine of the kind {bundle.manifest['engine'].get('kind')!r} that gives out none",
        "an engine that gives out its inner tensors: that of the target cpu, or of tensorrt with build.options.marked_tensors",
    )


def _impossible(where: str, found: str, expected: str) -> ToolchainError:
    return ToolchainError(
        "cannot compare layer by layer",
        where=where,
        found=found,
        expected=expected,
        fix="Leave --per-layer out to compare the outputs alone",
    )
