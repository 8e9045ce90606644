"""Removing whole output channels, so that the tensors of a layer and of its readers shrink."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.layers import Layer, attribute, constant_of, describe
from edgewise.quantize.pruning.matrices import as_matrices, refusal_of, weight_value, weighted_layers

# Operators that treat every channel by itself and read one tensor.
_CHANNELWISE = {
    "AveragePool", "Clip", "Dropout", "Elu", "Gelu", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish",
    "Identity", "LeakyRelu", "MaxPool", "Relu", "Sigmoid", "Softplus", "Tanh",
}  # fmt: skip


class _Refusal(Exception):  # noqa: N818 - never leaves this file: the reason goes into the report
    """Why a layer keeps its channels."""


@dataclass
class _Reach:
    """What has to shrink with a layer's outputs: per weight, the axis and how many entries belong to one channel."""

    cuts: list[tuple[ir.Value, int, int]] = field(default_factory=list)
    depthwise: list[ir.Node] = field(default_factory=list)
    passed: list[ir.Value] = field(default_factory=list)
    flattened: list[ir.Node] = field(default_factory=list)


def remove_channels(
    graph: ir.Graph, sparsity: float, skip: Sequence[str], refused: list[dict[str, str]]
) -> list[dict[str, Any]]:
    """Remove the channels with the smallest L1 norms (Li et al. 2017) where only layers read them.

    Before::

        Conv[8 ← 3] ─► Relu ─► MaxPool ─► Conv[16 ← 8]

    After, half of the channels::

        Conv[4 ← 3] ─► Relu ─► MaxPool ─► Conv[16 ← 4]

    Followed through operators that treat each channel by itself, depthwise convolutions and Flatten. Channels that are
    added, concatenated, reshaped or given out are shared with others and stay; the reason goes into ``refused``.
    """
    done = []
    for layer in weighted_layers(graph):
        try:
            done.append(_shrink(layer, graph, sparsity, layer.node.name in skip))
        except _Refusal as refusal:
            refused.append({"node": str(layer.node.name), "op": layer.node.op_type, "reason": str(refusal)})
    return done


def _shrink(layer: Layer, graph: ir.Graph, sparsity: float, skipped: bool) -> dict[str, Any]:
    reason = "asked for" if skipped else _own_refusal(layer, graph)
    if reason:
        raise _Refusal(reason)
    value = weight_value(layer)
    matrices = as_matrices(layer, np.asarray(constant_of(value), np.float32))
    count = len(matrices)
    reach = _Reach([(value, layer.channel_axis or 0, 1)])
    if layer.bias is not None:
        reach.cuts.append(_vector(layer.node.inputs[layer.bias], count))
    _follow(layer.node.outputs[0], count, 1, reach)
    if len({cut[0] for cut in reach.cuts}) < len(reach.cuts) or any(_shared(cut[0]) for cut in reach.cuts):
        raise _Refusal("weights that would have to shrink are shared")
    norms = np.abs(matrices, dtype=np.float64).sum(axis=(1, 2))
    removed = min(round(sparsity * count), count - 1)
    kept = np.sort(np.argsort(norms, kind="stable")[removed:])
    _cut(reach, kept, count)
    density = len(kept) / count
    return {"name": layer.node.name, "op": layer.node.op_type, "weight": value.name, "density": density}


def _own_refusal(layer: Layer, graph: ir.Graph) -> str:
    node = layer.node
    if node.op_type == "ConvTranspose" or attribute(node, "group", 1) > 1:
        return "its channels are bound to groups, or it is a transposed convolution"
    # Few weights or not, whole channels of the first layer may go: the reader shrinks with them.
    reason = refusal_of(layer, graph)
    return "" if reason.startswith("it reads the network's input") else reason


def _follow(value: ir.Value, channels: int, block: int, reach: _Reach) -> None:
    """Visit every reader of a tensor that has ``block`` entries per channel along its channel axis."""
    if value.is_graph_output():
        raise _Refusal("its channels are an output of the network")
    reach.passed.append(value)
    for use in value.uses():
        node = use.node
        if node.op_type in _CHANNELWISE and use.idx == 0:
            _follow(node.outputs[0], channels, block, reach)
        elif use.idx == 0 and block == 1 and _flattens(node):
            if node.op_type == "Reshape":
                reach.flattened.append(node)
            _follow(node.outputs[0], channels, _entries_per_channel(value), reach)
        elif node.op_type in ("Conv", "Gemm", "MatMul") and use.idx == 0:
            _reader(node, channels, block, reach)
        else:
            raise _Refusal(f"its channels go into {node.op_type} {node.name!r}, which others share")


def _reader(node: ir.Node, channels: int, block: int, reach: _Reach) -> None:
    layer = describe(node)
    if layer.weight != 1:
        raise _Refusal(f"its channels go into {node.op_type} {node.name!r}, whose weights are not constant")
    weights, groups = weight_value(layer), attribute(node, "group", 1)
    array = np.asarray(constant_of(weights))
    if node.op_type != "Conv":
        if array.ndim != 2 or attribute(node, "transA", 0) or _rank(node.inputs[0]) != 2:
            raise _Refusal(f"its channels go into {node.op_type} {node.name!r} along another axis")
        reach.cuts.append((weights, 1 - (layer.channel_axis or 0), block))
    elif groups == 1:
        reach.cuts.append((weights, 1, 1))
    elif groups == channels == array.shape[0]:
        reach.depthwise.append(node)
        reach.cuts.append((weights, 0, 1))
        if layer.bias is not None:
            reach.cuts.append(_vector(node.inputs[layer.bias], channels))
        _follow(node.outputs[0], channels, 1, reach)
    else:
        raise _Refusal(f"its channels go into the grouped convolution {node.name!r}")


def _vector(value: ir.Value | None, count: int) -> tuple[ir.Value, int, int]:
    array = constant_of(value)
    if value is None or array is None or array.shape != (count,):
        raise _Refusal("a bias is not a constant vector")
    return value, 0, 1


def _flattens(node: ir.Node) -> bool:
    """Whether a Flatten or a Reshape makes [batch, all the rest] of its input."""
    if node.op_type == "Flatten":
        return attribute(node, "axis", 1) == 1
    before, after = (value.shape if value is not None else None for value in (node.inputs[0], node.outputs[0]))
    if node.op_type != "Reshape" or before is None or after is None:
        return False
    return len(before) > 1 and len(after) == 2 and before[0] == after[0] and before[0] != 0


def _rank(value: ir.Value | None) -> int:
    return len(value.shape) if value is not None and value.shape is not None else -1


def _shared(value: ir.Value) -> bool:
    return len(list(value.uses())) != 1 or value.is_graph_output()


def _entries_per_channel(value: ir.Value) -> int:
    shape = value.shape
    if shape is None or any(not isinstance(dim, int) for dim in list(shape)[2:]):
        raise _Refusal("its channels are flattened together with dims that are not known")
    return int(np.prod([int(dim) for dim in list(shape)[2:] if isinstance(dim, int)], dtype=np.int64))


def _cut(reach: _Reach, kept: NDArray[np.intp], channels: int) -> None:
    for value, axis, block in reach.cuts:
        array = np.asarray(constant_of(value))
        index = (kept[:, None] * block + np.arange(block)).reshape(-1)
        shorter = np.ascontiguousarray(np.take(array, index, axis))
        value.const_value = ir.tensor(shorter, name=value.name)
        value.shape = ir.Shape(shorter.shape)
    for node in reach.depthwise:
        node.attributes["group"] = ir.AttrInt64("group", len(kept))
    for value in reach.passed:
        if value.shape is not None and len(value.shape) > 1:
            dims: list[Any] = list(value.shape)
            if isinstance(dims[1], int):
                dims[1] = dims[1] // channels * len(kept)
            value.shape = ir.Shape(dims)
    for node in reach.flattened:
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
