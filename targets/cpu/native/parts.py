"""A layer whose outputs part ways right after (queries, keys and values): better several layers, each with its own rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgewise.targets.cpu.native.context import (
    attribute_int,
    attribute_ints,
    constant_array,
    is_op,
    readers,
)
from edgewise.targets.cpu.native.epilogue import Epilogue, channel_axis
from edgewise.targets.cpu.native.form import Form, same_size
from edgewise.targets.cpu.native.plan import dim, product
from edgewise.targets.cpu.native.value import Value

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Part:
    """Some of a layer's output channels.

    Attributes:
        node: the node that takes them.
        output: which of its outputs they are.
        first: the first channel.
        count: how many.
        value: how they will lie in memory; with the lane that they would have as bytes.
    """

    node: ir.Node
    output: int
    first: int
    count: int
    value: Value


def parts_of(found: Epilogue) -> list[Part]:
    """The parts, when nothing but their own readers reads a layer's output; else none."""
    nodes = readers(found.last)
    simple = found.activation is None and found.residual is None and not found.last.is_graph_output()
    if not simple or not nodes or found.quant is not None:
        return []
    if len(nodes) == 1 and is_op(nodes[0], "Split"):
        return _split(nodes[0], found)
    if all(is_op(node, "Gather") for node in nodes):
        return _gathered(nodes, found)
    return []


def _split(node: ir.Node, found: Epilogue) -> list[Part]:
    value, axis = found.made, channel_axis(found)
    if axis is None or attribute_int(node, "axis", 0) % value.rank != axis or len(value.form.axes[axis]) != 1:
        return []
    channels = len(found.scale)
    listed = attribute_ints(node, "split")
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        array = constant_array(node.inputs[1])
        listed = None if array is None else [int(one) for one in array]
        if listed is None:
            return []
    if listed is None:
        if channels % len(node.outputs):
            return []
        listed = [channels // len(node.outputs)] * len(node.outputs)
    made, first = [], 0
    for index, count in enumerate(listed):
        axes = tuple((dim(count),) if one == axis else factors for one, factors in enumerate(value.form.axes))
        form = Form(axes, value.form.order)
        made.append(Part(node, index, first, count, Value(form, lane=form.numbers(axis)[-1])))
        first += count
    return made if all(count > 1 for count in listed) else []


def _gathered(nodes: list[ir.Node], found: Epilogue) -> list[Part]:
    """One index each of an axis that is the outermost part of the channels."""
    value, form = found.made, found.made.form
    made = []
    for node in nodes:
        index = None if node.inputs[1] is None else constant_array(node.inputs[1])
        axis = attribute_int(node, "axis", 0) % value.rank
        numbers = form.numbers(axis)
        if index is None or index.ndim or len(numbers) != 1 or node.inputs[0] is not found.last:
            return []
        count, at = form.factors[numbers[0]].constant, form.order.index(numbers[0])
        if count is None or len(found.scale) % count or not same_size(product(form.memory[:at]), found.before):
            return []
        inner = Form(
            tuple(factors for one, factors in enumerate(form.axes) if one != axis),
            tuple(number - (number > numbers[0]) for number in form.order if number != numbers[0]),
        )
        lane = value.lane
        if lane is None or lane == numbers[0]:
            return []
        size = len(found.scale) // count
        first = (int(index) % count) * size
        made.append(Part(node, 0, first, size, Value(inner, lane=lane - (lane > numbers[0]))))
    return made
