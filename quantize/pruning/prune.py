"""Magnitude pruning of a graph's weights."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.layers import Layer, constant_of
from edgewise.quantize.passes.prepare import prepare
from edgewise.quantize.pruning.channels import remove_channels
from edgewise.quantize.pruning.matrices import (
    as_matrices,
    from_matrices,
    refusal_of,
    weight_value,
    weighted_layers,
)
from edgewise.quantize.pruning.patterns import Pattern, parse_pattern
from edgewise.quantize.rewritten import Rewritten
from edgewise.runtime.progress import Progress, silent

CHANNEL = "channel"


def prune(
    model: ir.Model, *, pattern: str, sparsity: float, skip: Sequence[str] = (), progress: Progress = silent
) -> Rewritten:
    """Remove the smallest weights of each layer (Han et al. 2015), in a pattern; densities are uniform over layers.

    Before::

        Conv(w)  w = [ 9 1 8 2 ]

    After, with ``2:4``::

        Conv(w)  w = [ 9 0 8 0 ]

    Left alone, with the reason in the report: the layer that reads the network's input, depthwise convolutions, weights
    whose dims the pattern does not divide, weights that are not constant float32.

    Args:
        model: a float32 network; not changed.
        pattern: ``unstructured``; ``block:RxC``, R consecutive inputs by C consecutive outputs; ``N:M``, at most N of M
            consecutive inputs; ``channel``, whole output channels, so that tensors shrink.
        sparsity: the fraction of each layer's weights (of its channels for ``channel``) to remove, 0 to below 1.
        skip: names of layers to leave alone.
        progress: told how far it is.

    Returns:
        The new model; the report has ``pattern``, ``asked``, ``sparsity`` (reached, over all weights of layers),
        ``layers`` (``name, op, weight, density``) and ``refused`` (``node, op, reason``).

    Raises:
        QuantizeError: an unknown pattern, a sparsity that it does not have, an unknown layer in ``skip``, or no layer left.
    """
    chosen = None if pattern == CHANNEL else parse_pattern(pattern, sparsity)
    model = prepare(model)
    graph = model.graph
    _check_names(graph, skip)
    before = _count(graph)
    refused: list[dict[str, str]] = []
    if chosen is None:
        parse_pattern("unstructured", sparsity)  # the same limits hold
        done = remove_channels(graph, sparsity, skip, refused)
    else:
        done = _mask_layers(graph, chosen, sparsity, skip, refused, progress)
    if not done:
        raise QuantizeError(
            "nothing to prune",
            where=f"pattern {pattern}, graph {graph.name!r}",
            found=f"{refused[0]['node']}: {refused[0]['reason']}" if refused else "no layer with constant weights",
            expected="at least one layer that can have the pattern",
            fix="Choose another pattern, or leave this stage out",
        )
    left = _count(graph)
    report = {
        "pattern": pattern,
        "asked": sparsity,
        "sparsity": 1 - left / before if before else 0.0,
        "layers": done,
        "refused": refused,
    }
    return Rewritten(model, report)


def _mask_layers(
    graph: ir.Graph,
    pattern: Pattern,
    sparsity: float,
    skip: Sequence[str],
    refused: list[dict[str, str]],
    progress: Progress,
) -> list[dict[str, Any]]:
    done: dict[ir.Value, dict[str, Any]] = {}
    layers = weighted_layers(graph)
    for number, layer in enumerate(layers):
        value = weight_value(layer)
        if value not in done:
            reason = "asked for" if layer.node.name in skip else refusal_of(layer, graph)
            reason = reason or _apply(layer, value, pattern, sparsity)
            if reason:
                refused.append({"node": str(layer.node.name), "op": layer.node.op_type, "reason": reason})
            else:
                done[value] = _entry(layer, value)
        progress("prune", number + 1, len(layers))
    return list(done.values())


def _apply(layer: Layer, value: ir.Value, pattern: Pattern, sparsity: float) -> str:
    """Zero what the pattern removes; gives the reason where it does not fit."""
    array = np.asarray(constant_of(value), np.float32)
    matrices = as_matrices(layer, array)
    reason = pattern.refusal(matrices)
    if not reason:
        # Not a product with the mask: that would make -0.0 of negative weights.
        kept = np.where(pattern.keep(matrices, sparsity), matrices, np.float32(0))
        value.const_value = ir.tensor(from_matrices(layer, kept, array.shape), name=value.name)
    return reason


def _entry(layer: Layer, value: ir.Value) -> dict[str, Any]:
    array = np.asarray(constant_of(value))
    density = np.count_nonzero(array) / max(array.size, 1)
    return {"name": layer.node.name, "op": layer.node.op_type, "weight": value.name, "density": density}


def _count(graph: ir.Graph) -> int:
    """Weights of layers that are not zero."""
    values = {weight_value(layer) for layer in weighted_layers(graph)}
    return sum(int(np.count_nonzero(np.asarray(constant_of(value)))) for value in values)


def _check_names(graph: ir.Graph, skip: Sequence[str]) -> None:
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
