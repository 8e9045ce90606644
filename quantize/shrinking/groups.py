"""Units that can be removed from a network, and which of them compete: found from the graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.layers import Layer, attribute, constant_of
from edgewise.quantize.pruning.matrices import refusal_of, weight_value, weighted_layers
from edgewise.quantize.pruning.selection import refusal
from edgewise.quantize.shrinking.entries import Entries, Stay
from edgewise.quantize.shrinking.reshapes import bind_reshape
from edgewise.quantize.shrinking.rules import HEAD, STREAM, apply_rule

Indices = NDArray[np.intp]
Span = tuple[ir.Value, int]  # a tensor and one of its axes

CHANNEL, HEADS, WIDTH = "channel", "head", "width"
KINDS = (CHANNEL, HEADS, WIDTH)


@dataclass
class Group:
    """Units of one kind that lie on the same tensors; some of them may go.

    ::

        Conv a ─┬─► Add ─► Relu ─┬─► Conv c      a unit is a channel of a, of b and of what c and d read
        Conv b ─┘                └─► Conv d

    Attributes:
        makers: the layers whose outputs the units are.
        units: per unit its entries of every axis that it lies on.
    """

    makers: list[Layer]
    units: list[dict[Span, Indices]] = field(default_factory=list)


def find_groups(graph: ir.Graph, kind: str, skip: Sequence[str], refused: list[dict[str, str]]) -> list[Group]:
    """The groups of one kind, in the order of the graph.

    Args:
        graph: prepared: shapes inferred, constants as initializers.
        kind: ``channel`` (everything but heads), ``width`` (channels that no addition of layers holds), ``head``.
        skip: names of layers that keep their outputs.
        refused: lines of the report are added here.
    """
    entries = bound(graph, skip)
    spans = _by_class(entries)
    heads, stream = entries.marked(HEAD), entries.marked(STREAM)
    found: dict[tuple[Span, ...], Group] = {}
    taken: set[int] = set()
    for layer in weighted_layers(graph):
        if reason := _own_reason(layer, entries):
            refused.append(refusal(layer, reason))
            continue
        classes = list(dict.fromkeys(entries.classes(_outputs(entries, layer))))
        of_kind = [each for each in classes if each in spans and (each in heads) == (kind == HEADS)]
        if kind == WIDTH:
            of_kind = [each for each in of_kind if each not in stream]
        if not of_kind and (reason := _other_kind(kind, bool(heads & set(classes)))):
            refused.append(refusal(layer, reason))
        for each in of_kind:
            if each not in taken:
                taken.add(each)
                found.setdefault(tuple(spans[each]), Group([])).units.append(spans[each])
    for group in found.values():
        group.makers = _makers(graph, group)
    return list(found.values())


def bound(graph: ir.Graph, skip: Sequence[str]) -> Entries:
    """All that binds entries in a graph, and all that stays."""
    entries = Entries()
    late = [node for node in graph if not node.domain and node.op_type in ("Flatten", "Reshape")]
    for node in graph:
        if node not in late:
            apply_rule(entries, node)
    for layer in weighted_layers(graph):
        reason = "asked for" if layer.node.name in skip else _weights_reason(layer, graph)
        if reason:
            entries.freeze(_outputs(entries, layer), Stay(reason, str(layer.node.name)))
    for values, reason in (
        (graph.inputs, "its channels are bound to an input of the network"),
        (graph.outputs, "its channels are an output of the network"),
    ):
        for value in values:
            for axis in range(len(value.shape) if value.shape is not None else 0):
                entries.freeze(entries.of(value, axis), Stay(reason))
    for node in late:
        bind_reshape(entries, node)
    return entries


def _weights_reason(layer: Layer, graph: ir.Graph) -> str:
    reason = refusal_of(layer, graph)
    # Few weights or not, whole channels of the first layer may go, and depthwise ones with those that they filter.
    return (
        ""
        if reason.startswith(("it reads the network's input", "it is a depthwise", "its weights are used"))
        else reason
    )


def _outputs(entries: Entries, layer: Layer) -> Indices:
    """The ids of a layer's output channels."""
    ids = None if layer.channel_axis is None else entries.of(weight_value(layer), layer.channel_axis)
    return np.zeros(0, np.intp) if ids is None else ids


def _own_reason(layer: Layer, entries: Entries) -> str:
    outputs = _outputs(entries, layer)
    if not outputs.size:
        return "its weights have no output channels of their own"
    stays = [entries.stay(int(each)) for each in outputs]
    if not all(stays):
        return ""
    stay = stays[0]
    if stay is None or not stay.layer or stay.layer == layer.node.name:
        return stay.reason if stay is not None else ""
    return f"its channels are bound to those of {stay.layer!r}, which stays: {stay.reason}"


def _other_kind(kind: str, heads: bool) -> str:
    if kind == HEADS:
        return "its channels are no attention heads"
    if heads:
        return "its channels are attention heads: the pattern head removes them"
    return "its channels are added to those of other layers: the pattern channel removes them" if kind == WIDTH else ""


def _by_class(entries: Entries) -> dict[int, dict[Span, Indices]]:
    """Of every class that may go, where it lies."""
    found: dict[int, dict[Span, list[int]]] = defaultdict(lambda: defaultdict(list))
    for value, axis, ids in entries.spans():
        for index, each in enumerate(entries.classes(ids)):
            if entries.stay(each) is None:
                found[each][value, axis].append(index)
    return {each: {span: np.array(at) for span, at in spans.items()} for each, spans in found.items()}


def _makers(graph: ir.Graph, group: Group) -> list[Layer]:
    spans = set(group.units[0])
    found = [each for each in weighted_layers(graph) if (weight_value(each), each.channel_axis) in spans]
    return [each for each in found if not _depthwise(each)]


def _depthwise(layer: Layer) -> bool:
    array = constant_of(weight_value(layer))
    return attribute(layer.node, "group", 1) > 1 and array is not None and array.shape[1] == 1
