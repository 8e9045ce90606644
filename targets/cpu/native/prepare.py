"""From the caller's graph to the one that is lowered: constants folded, nodes named, activations in one piece."""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnx import version_converter
from onnxscript import optimizer

from edgewise.targets.cpu.native.doubles import narrow
from edgewise.targets.cpu.native.half import widen
from edgewise.targets.cpu.native.recurrence.chains import find_recurrences
from edgewise.targets.cpu.native.recurrence.readout import read_out
from edgewise.targets.cpu.native.rewrites import rewrite
from edgewise.targets.cpu.native.rows_at_run import join_rounding
from edgewise.targets.cpu.native.table import has_operator
from edgewise.targets.cpu.native.value import Refusal
from edgewise.targets.cpu.native.written.rules import write_rules_out
from edgewise.targets.definitions.onnx_functions import DefinitionError, write_out
from edgewise.targets.loggers import without_warnings
from edgewise.targets.nodes import node_names

_LIMIT = 1 << 28
_FIRST_OPSET = 13  # before it, Softmax and Squeeze meant something else; older graphs are converted


def prepare(model: ir.Model) -> ir.Model:
    """A copy that is ready to be lowered.

    ``DequantizeLinear`` of constants stays: these are the weights in integers.

    Raises:
        Refusal: an old opset that ONNX cannot convert, or a graph that cannot be folded.
    """
    opset = model.opset_imports.get("", _FIRST_OPSET)
    ready = model.clone() if opset >= _FIRST_OPSET else _upgraded(model, opset)
    passes.InlinePass()(ready)
    widen(ready)
    _name(ready)
    with without_warnings("onnxscript", "onnx_ir"):
        _fold(ready)
        while _written_out(ready):  # after folding, for what a definition computes of constants is folded as a whole
            _fold(ready)
        lifted = find_recurrences(ready)
        if lifted.values:
            _fold(ready)  # which also infers the shapes of what was made
            read_out(ready.graph, lifted)
            _fold(ready)
    narrow(ready.graph)
    _name(ready)
    rewrite(ready.graph)
    join_rounding(ready.graph)
    passes.RemoveUnusedNodesPass()(ready)
    passes.TopologicalSortPass()(ready)
    return ready


def _upgraded(model: ir.Model, opset: int) -> ir.Model:
    try:
        return ir.from_proto(version_converter.convert_version(ir.to_proto(model), _FIRST_OPSET))
    except (RuntimeError, version_converter.ConvertError) as error:
        why = " ".join(str(error).split())
        raise Refusal(f"opset {opset}, which ONNX cannot convert to {_FIRST_OPSET} ({why})") from error


def _name(model: ir.Model) -> None:
    for node, name in zip(model.graph, node_names(model.graph), strict=True):
        node.name, node.version = name, model.opset_imports.get(node.domain)


def _written_out(model: ir.Model) -> bool:
    if write_rules_out(model):
        return True
    try:
        return write_out(model, has_operator)
    except DefinitionError as error:
        raise Refusal(str(error)) from error


def _fold(model: ir.Model) -> None:
    passes.RemoveInitializersFromInputsPass()(model)
    passes.InlinePass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    try:
        optimizer.fold_constants(
            model,
            onnx_shape_inference=True,
            input_size_limit=_LIMIT,
            output_size_limit=_LIMIT,
            should_fold=_should_fold,
        )
    except RuntimeError as error:
        raise Refusal(f"a graph whose constants cannot be folded ({error})") from error
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.IdentityEliminationPass()(model)
    passes.RemoveUnusedNodesPass()(model)
    if not _all_known(model.graph):
        passes.ShapeInferencePass(check_type=False, strict_mode=False)(model)


def _all_known(graph: ir.Graph) -> bool:
    """Whether nothing is left to infer: inference keeps what is known."""
    return all(
        value.dtype is not None and value.shape is not None and value.shape.is_static()
        for node in graph.all_nodes()
        for value in node.outputs
    )


def _should_fold(node: ir.Node) -> bool | None:
    return False if node.op_type in ("QuantizeLinear", "DequantizeLinear") else None
