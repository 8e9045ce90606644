"""From the caller's graph to the one that is judged and built: one opset domain, constants folded, shapes known."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnxscript import optimizer

from edgewise.targets.base import TargetError
from edgewise.targets.coreml.control import OPERATORS, write_out
from edgewise.targets.coreml.expand import expand
from edgewise.targets.coreml.fusions.attention import fuse_attention
from edgewise.targets.coreml.fusions.normalization import fuse_normalizations
from edgewise.targets.coreml.lighten import lighten
from edgewise.targets.coreml.node import constant
from edgewise.targets.coreml.widen import widen
from edgewise.targets.loggers import without_warnings
from edgewise.targets.nodes import node_names

_WEIGHT_FORMS = ("DequantizeLinear",)
_SHAPED_AS_INPUT = ("GroupNormalization",)
_FIRST_WITH_ATTENTION = 18
_LIMIT = 1 << 28


def prepare(model: ir.Model, ios: int, dims: Mapping[str, int] | None = None) -> ir.Model:
    """A copy of the model with functions inlined and constants folded.

    Symbolic dims are fixed where ``dims`` says so; what is one operation in this version of Core ML (``ios``) is fused.
    Dtypes that Core ML does not compute in are those that it does.
    ``DequantizeLinear`` of constants stays: these are the weights in integers.

    Raises:
        TargetError: the graph is not valid ONNX.
    """
    with without_warnings("onnxscript", "onnx_ir"):
        return _prepare(model, ios, dims or {})


def _prepare(model: ir.Model, ios: int, dims: Mapping[str, int]) -> ir.Model:
    ready = model.clone()
    for node, name in zip(ready.graph, node_names(ready.graph), strict=True):
        node.name = name
    passes.RemoveInitializersFromInputsPass()(ready)
    passes.InlinePass()(ready)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(ready)
    _fix_dims(ready, dims)
    ready = _folded(expand(ready))
    while _has_control(ready) and write_out(ready):
        ready = _folded(expand(ready))
    fuse_normalizations(ready)
    widen(ready, ios)
    lighten(ready, ios)
    if ios >= _FIRST_WITH_ATTENTION:
        fuse_attention(ready)
    passes.RemoveUnusedNodesPass()(ready)
    passes.TopologicalSortPass()(ready)
    return ready


def _folded(model: ir.Model) -> ir.Model:
    """Constants computed, branches of constant conditions taken, shapes known; in place."""
    try:
        optimizer.fold_constants(
            model,
            onnx_shape_inference=True,
            input_size_limit=_LIMIT,
            output_size_limit=_LIMIT,
            should_fold=_should_fold,
        )
    except RuntimeError as error:
        raise TargetError(
            "cannot prepare the graph for Core ML",
            where="constant folding",
            found=str(error),
            expected="a valid ONNX model",
            fix="Check it with onnx.checker",
        ) from error
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    if _has_control(model):
        passes.LiftSubgraphInitializersToMainGraphPass()(model)
    passes.RemoveUnusedNodesPass()(model)
    _infer_shapes(model)
    return model


def _has_control(model: ir.Model) -> bool:
    return any(node.op_type in OPERATORS for node in model.graph)


def _infer_shapes(model: ir.Model) -> None:
    """ONNX's own inference, helped over the operators that it has no rule for."""
    infer = passes.ShapeInferencePass(check_type=False, strict_mode=False)
    infer(model)
    for node in model.graph:
        output, source = node.outputs[0], node.inputs[0] if node.inputs else None
        if (
            node.op_type in _SHAPED_AS_INPUT
            and output.shape is None
            and source is not None
            and source.shape is not None
        ):
            output.shape, output.type = source.shape, source.type
            infer(model)


def _should_fold(node: ir.Node) -> bool:
    return node.op_type not in _WEIGHT_FORMS


def _fix_dims(model: ir.Model, dims: Mapping[str, int]) -> None:
    if not dims:
        return
    values = [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]
    for value in values:
        if value.shape is not None:
            value.shape = ir.Shape([_fixed(dim, dims) for dim in value.shape])


def _fixed(dim: int | ir.SymbolicDim, dims: Mapping[str, int]) -> int | ir.SymbolicDim:
    name = dim if isinstance(dim, int) else dim.value
    return dims[name] if isinstance(name, str) and name in dims else dim


def nodes_of(model: ir.Model) -> list[ir.Node]:
    """The nodes that compute: all but constants that are outputs of the graph themselves."""
    return [node for node in model.graph if any(constant(output) is None for output in node.outputs)]


def opset_of(model: ir.Model) -> int:
    """Version of ONNX's default domain."""
    return model.opset_imports.get("", 1)
