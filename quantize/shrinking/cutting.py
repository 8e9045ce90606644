"""Writing a graph without the units that go."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx_ir as ir

from edgewise.quantize.layers import attribute, constant_of
from edgewise.quantize.shrinking.entries import size_of
from edgewise.quantize.shrinking.groups import Indices, Span

Gone = dict[Span, set[int]]


def cut(graph: ir.Graph, units: Iterable[dict[Span, Indices]]) -> None:
    """Remove units in place: constants and shapes shrink, and with them what nodes say of sizes.

    Before::

        Conv[8 ← 3] ─► Split<4, 4> ─► Reshape<1, 2, 2, …>

    After, without channels 2, 3, 6 and 7 (unit 1 of two)::

        Conv[4 ← 3] ─► Split<2, 2> ─► Reshape<1, 1, 2, …>
    """
    gone: Gone = {}
    for unit in units:
        for span, at in unit.items():
            gone.setdefault(span, set()).update(at.tolist())
    for node in list(graph):
        _say_sizes(node, gone)
    for (value, axis), entries in gone.items():
        _shorten(value, axis, entries)


def _shorten(value: ir.Value, axis: int, entries: set[int]) -> None:
    array = constant_of(value)
    if array is not None:
        shorter = np.ascontiguousarray(np.delete(array, sorted(entries), axis))
        value.const_value = ir.tensor(shorter, name=value.name)
        value.shape = ir.Shape(shorter.shape)
    elif value.shape is not None:
        dims: list[Any] = list(value.shape)
        dims[axis] -= len(entries)
        value.shape = ir.Shape(dims)


def _say_sizes(node: ir.Node, gone: Gone) -> None:
    """Attributes and shape inputs that count what is removed, while the tensors still have their old sizes."""
    if node.op_type == "Conv" and attribute(node, "group", 1) > 1:
        lost = len(gone.get((node.inputs[0], 1), ())) if node.inputs[0] is not None else 0
        node.attributes["group"] = ir.AttrInt64("group", attribute(node, "group", 1) - lost)
    elif node.op_type == "Reshape":
        _say_shape(node, gone)
    elif node.op_type == "Split":
        _say_parts(node, gone)
    elif node.op_type == "Pad":
        _say_pads(node, gone)


def _say_shape(node: ir.Node, gone: Gone) -> None:
    made, shape = node.outputs[0], constant_of(node.inputs[1])
    lost = {axis: len(gone[made, axis]) for axis in range(len(made.shape or ())) if (made, axis) in gone}
    if shape is None or not any(shape[axis] > 0 for axis in lost):
        return
    wanted = [int(size) - (lost.get(axis, 0) if size > 0 else 0) for axis, size in enumerate(shape)]
    _replace(node, 1, "shape", wanted)


def _say_parts(node: ir.Node, gone: Gone) -> None:
    along = attribute(node, "axis", 0) % len(node.outputs[0].shape or (0,))
    if not any((value, along) in gone for value in node.outputs):
        return
    sizes = [(size_of(value, along) or 0) - len(gone.get((value, along), ())) for value in node.outputs]
    node.attributes.pop("num_outputs", None)
    _replace(node, 1, "sizes", sizes)


def _say_pads(node: ir.Node, gone: Gone) -> None:
    made, pads = node.outputs[0], constant_of(node.inputs[1])
    if pads is None or not any((made, axis) in gone for axis in range(len(pads) // 2)):
        return
    wanted = [int(pad) for pad in pads]
    rank = len(wanted) // 2
    for axis in range(rank):
        size, before = size_of(made, axis) or 0, int(pads[axis])
        lost = gone.get((made, axis), set())
        wanted[axis] -= sum(entry < before for entry in lost)
        wanted[axis + rank] -= sum(entry >= size - int(pads[axis + rank]) for entry in lost)
    _replace(node, 1, "pads", wanted)


def _replace(node: ir.Node, index: int, what: str, numbers: list[int]) -> None:
    """A constant of this node's own: others may share the old one."""
    graph = node.graph
    if graph is None:
        raise ValueError(node.name)
    name = f"{node.name}_{what}_cut"
    array = np.array(numbers, np.int64)
    value = ir.Value(
        name=name,
        type=ir.TensorType(ir.DataType.INT64),
        shape=ir.Shape(array.shape),
        const_value=ir.tensor(array, name=name),
    )
    graph.register_initializer(value)
    if index < len(node.inputs):
        node.replace_input_with(index, value)
    else:
        node.resize_inputs(index + 1)
        node.replace_input_with(index, value)
