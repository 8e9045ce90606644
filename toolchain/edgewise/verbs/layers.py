"""Layer by layer: the tensors that an engine's ONNX graph and the source's have in common, and the first that diverges."""

from __future__ import annotations

from collections.abc import Sequence
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
    engine = _engine_graph(bundle)
    source = _source_graph(bundle, against, options)
    made = _floats(engine)
    names = [name for name in _floats(source) if name in made]
    if not names:
        raise _impossible(
            str(against), "no inner tensor of the same name in both", "the network that the bundle was made from"
        )
    limit = FLOAT_MIN_SQNR_DB if threshold is None else threshold
    layers = []
    for start in range(0, len(names), _AT_ONCE):
        layers += _compare(source, engine, names[start : start + _AT_ONCE], sample)
        progress("compare layers", min(start + _AT_ONCE, len(names)), len(names))
    first = next((layer for layer in layers if not layer["exact"] and (layer["sqnr_db"] or -np.inf) < limit), None)
    return {"layers": layers, "first_diverging": first, "layer_threshold_db": limit}


def _compare(source: ir.Model, engine: ir.Model, names: Sequence[str], sample: Arrays) -> list[dict[str, Any]]:
    wanted = OnnxRunner(source, outputs=names, optimize=False).run(sample)
    made = OnnxRunner(engine, outputs=names, optimize=False).run(sample)
    ops = {value.name: node.op_type for node in source.graph for value in node.outputs}
    return [
        {"op": ops[name], **compare_outputs([{name: wanted[name]}], [{name: made[name]}])[0].to_json()}
        for name in names
        # An engine may keep a tensor in another layout; that says nothing of its numbers.
        if wanted[name].shape == made[name].shape and made[name].dtype.kind == wanted[name].dtype.kind == "f"
    ]


def _floats(model: ir.Model) -> list[str]:
    """Tensors that nodes compute, in order; those known to be integers left out."""
    found = [value for node in model.graph for value in node.outputs if value.name]
    return [str(value.name) for value in found if value.dtype is None or value.dtype.is_floating_point()]


def _engine_graph(bundle: Bundle) -> ir.Model:
    graphs = [name for name in bundle.manifest["engine"]["files"] if name.endswith(".onnx")]
    if len(graphs) != 1:
        found = f"an engine of the kind {bundle.manifest['engine'].get('kind')!r}"
        raise _impossible(str(bundle.path), found, "an engine that is an ONNX graph, such as target cpu's")
    return read_onnx(bundle.file(graphs[0]))


def _source_graph(bundle: Bundle, against: str | Path | None, options: SourceOptions) -> ir.Model:
    if against is None:
        raise _impossible("--per-layer", "no source", "--against SOURCE")
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
