"""Which layers can have a pattern, and why the others cannot."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.layers import Layer, attribute, constant_of
from edgewise.quantize.pruning.columns import columns_refusal
from edgewise.quantize.pruning.matrices import as_matrices, refusal_of, weight_value, weighted_layers
from edgewise.quantize.pruning.patterns import Pattern


def select(
    graph: ir.Graph, pattern: Pattern, skip: Sequence[str], with_data: bool, refused: list[dict[str, str]]
) -> list[Layer]:
    """The layers to prune, one for each tensor of weights."""
    chosen: dict[ir.Value, Layer] = {}
    for layer in weighted_layers(graph):
        value = weight_value(layer)
        if value in chosen:
            continue
        reason = "asked for" if layer.node.name in skip else refusal_of(layer, graph)
        reason = reason or _misfit(layer, pattern) or (_data_refusal(layer) if with_data else "")
        if reason:
            refused.append(refusal(layer, reason))
        else:
            chosen[value] = layer
    return list(chosen.values())


def _misfit(layer: Layer, pattern: Pattern) -> str:
    array = np.asarray(constant_of(weight_value(layer)), np.float32)
    if not np.any(array):
        return "its weights are all zero"
    made, positions, read = as_matrices(layer, array).shape
    return pattern.refusal((made // attribute(layer.node, "group", 1), positions, read))


def _data_refusal(layer: Layer) -> str:
    if len(list(weight_value(layer).uses())) > 1:
        return "several layers share its weights, and each would have to change them in its own way"
    return columns_refusal(layer)


def refusal(layer: Layer, reason: str) -> dict[str, str]:
    """A line of the report's ``refused``."""
    return {"node": str(layer.node.name), "op": layer.node.op_type, "reason": reason}


def check_names(graph: ir.Graph, skip: Sequence[str]) -> None:
    """Raises QuantizeError for a name that no node bears."""
    known = [str(node.name) for node in graph]
    for name in skip:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)
            raise QuantizeError(
                "cannot leave a layer alone",
                where=f"skip {name!r}",
                found="no node of that name",
                expected=f"a node of the graph, such as {near[0]!r}" if near else "a node of the graph",
                fix="List the names with `edgewise inspect`",
            )
