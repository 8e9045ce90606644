"""Removing whole output channels, so that the tensors of layers and of their readers shrink."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.layers import Layer, attribute, constant_of
from edgewise.quantize.pruning.coupling import Group, Refusal
from edgewise.quantize.pruning.matrices import as_matrices, refusal_of, weight_value, weighted_layers


def remove_channels(
    graph: ir.Graph, sparsity: float, skip: Sequence[str], refused: list[dict[str, str]]
) -> list[dict[str, Any]]:
    """Remove the channels with the smallest L1 norms (Li et al. 2017).

    Before::

        Conv[8 ← 3] ─┬─► Conv[8 ← 8] ─► Add ─► Relu ─► Conv[16 ← 8]
                     └──────────────────►┘

    After, half of the channels; those of the two convolutions that meet in the Add go together, by the sum of their
    norms (each relative to its layer's mean)::

        Conv[4 ← 3] ─┬─► Conv[4 ← 4] ─► Add ─► Relu ─► Conv[16 ← 4]
                     └──────────────────►┘

    Followed through operators that treat each channel by itself, residual additions, gates, depthwise convolutions,
    Flatten, and the hidden width of MLPs. Channels that are concatenated, reshaped, normalized over or given out stay;
    the reason goes into ``refused``.
    """
    done: list[dict[str, Any]] = []
    settled: set[ir.Node] = set()
    for layer in weighted_layers(graph):
        if layer.node in settled:
            continue
        group, reason = _group(layer, graph, skip)
        if not reason:
            settled.update(maker.node for maker in group.makers)
            done += _shrink(group, sparsity)
        else:
            refused.append({"node": str(layer.node.name), "op": layer.node.op_type, "reason": reason})
    return done


def _group(layer: Layer, graph: ir.Graph, skip: Sequence[str]) -> tuple[Group, str]:
    """Everything that shrinks with a layer, or why it does not."""
    matrices = None if (reason := _own_refusal(layer, graph, skip)) else _matrices(layer)
    if matrices is None:
        return Group(0), reason
    group = Group(len(matrices))
    output = layer.node.outputs[0]
    last = len(output.shape) - 1 if output.shape is not None else 1
    try:
        group.visit(output, 1 if layer.node.op_type == "Conv" else last)
    except Refusal as refusal:
        return group, str(refusal)
    cuts = [cut[:2] for cut in group.cuts]  # weights that both read and make the channels are cut along both axes
    if len(set(cuts)) < len(cuts) or any(_shared(constant) for constant, _ in cuts):
        return group, "weights that would have to shrink are shared"
    others = [maker for maker in group.makers if maker.node is not layer.node]
    for other in others:
        if reason := _own_refusal(other, graph, skip):
            return group, f"its channels are bound to those of {other.node.name!r}, which stays: {reason}"
    return group, ""


def _own_refusal(layer: Layer, graph: ir.Graph, skip: Sequence[str]) -> str:
    if layer.node.name in skip:
        return "asked for"
    if layer.node.op_type == "ConvTranspose" or attribute(layer.node, "group", 1) > 1:
        return "its channels are bound to groups, or it is a transposed convolution"
    # Few weights or not, whole channels of the first layer may go: the reader shrinks with them.
    reason = refusal_of(layer, graph)
    return "" if reason.startswith("it reads the network's input") else reason


def _matrices(layer: Layer) -> NDArray[np.float32]:
    return as_matrices(layer, np.asarray(constant_of(weight_value(layer)), np.float32))


def _shared(value: ir.Value) -> bool:
    return len(list(value.uses())) != 1 or value.is_graph_output()


def _shrink(group: Group, sparsity: float) -> list[dict[str, Any]]:
    removed = min(round(sparsity * group.count), group.count - 1)
    kept = np.sort(np.argsort(_norms(group), kind="stable")[removed:])
    _cut(group, kept)
    density = len(kept) / group.count
    return [
        {"name": maker.node.name, "op": maker.node.op_type, "weight": weight_value(maker).name, "density": density}
        for maker in group.makers
    ]


def _norms(group: Group) -> NDArray[np.float64]:
    """Per channel, the sum of its L1 norms over the layers that make it, each relative to its layer's mean."""
    total = np.zeros(group.count)
    for maker in group.makers:
        norms = np.abs(_matrices(maker), dtype=np.float64).sum(axis=(1, 2))
        total += norms / max(norms.mean(), np.finfo(np.float32).tiny)
    return total


def _cut(group: Group, kept: NDArray[np.intp]) -> None:
    for value, axis, block in group.cuts:
        array = np.asarray(constant_of(value))
        index = (kept[:, None] * block + np.arange(block)).reshape(-1)
        shorter = np.ascontiguousarray(np.take(array, index, axis))
        value.const_value = ir.tensor(shorter, name=value.name)
        value.shape = ir.Shape(shorter.shape)
    for node in group.depthwise:
        node.attributes["group"] = ir.AttrInt64("group", len(kept))
    for value, axis in group.passed.items():
        if value.shape is not None and len(value.shape) > axis:
            dims: list[Any] = list(value.shape)
            if isinstance(dims[axis], int):
                dims[axis] = dims[axis] // group.count * len(kept)
            value.shape = ir.Shape(dims)
    for node in group.flattened:
        _as_flatten(node)


def _as_flatten(node: ir.Node) -> None:
    """Replace a Reshape, whose target shape would no longer fit, with the Flatten that it is."""
    graph, old = node.graph, node.outputs[0]
    if graph is None:
        raise ValueError(node.name)
    flatten = ir.node("Flatten", [node.inputs[0]], attributes={"axis": 1}, name=node.name)
    flatten.outputs[0].name, flatten.outputs[0].type, flatten.outputs[0].shape = old.name, old.type, old.shape
    graph.insert_before(node, flatten)
    old.replace_all_uses_with(flatten.outputs[0])
    graph.remove(node, safe=True)
