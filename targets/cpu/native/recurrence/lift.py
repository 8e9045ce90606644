"""The same values of every step of a written-out loop, as one value with the steps in front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from edgewise.targets.cpu.native.activations import PRIVATE
from edgewise.targets.cpu.native.context import attribute_int, attribute_ints, constant_array, is_op
from edgewise.targets.cpu.native.written.writer import Writer

RECURRENCE = "Recurrence"
_ELEMENTWISE = (
    "Abs", "Add", "Cast", "Clip", "Cos", "Div", "Erf", "Exp", "Gelu", "Identity", "Log", "Max", "Min", "Mul", "Neg", "Pow", "Reciprocal", "Relu",
    "Sigmoid", "Sin", "Softplus", "Sqrt", "Sub", "Tanh", "Where",
)  # fmt: skip
_REDUCED = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin")
_MOST_DEPTH = 64  # operators of one step on the way to what all steps share
_MOST_STACKED = 1 << 12  # elements of a constant that differs from step to step


@dataclass
class Lifted:
    """What is in the graph already.

    Attributes:
        values: by list of each step's value.
        firsts: of a recurrence that begins with 0, the term that is its first state.
    """

    values: dict[tuple[ir.Value, ...], ir.Value] = field(default_factory=dict)
    firsts: dict[ir.Value, ir.Value] = field(default_factory=dict)


class NotLiftedError(Exception):
    """The steps do not compute the same thing of neighbouring parts of something."""


class Lifter:
    """Lifts lists of one value per step.

    Attributes:
        write: collects the nodes.
        lifted: by list, what is in the graph already and what is made here.
        recurrent: whether a value was lifted that a ``Recurrence`` gives.
    """

    def __init__(self, write: Writer, lifted: Lifted) -> None:
        self.write = write
        self.recurrent = False
        self.lifted = dict(lifted.values)
        self._firsts = lifted.firsts

    def lift(self, values: Sequence[ir.Value | None], depth: int = 0) -> ir.Value:
        """One value [steps, …], or [1, …] where all steps have the same one.

        Raises:
            NotLiftedError: the steps differ in more than their place.
        """
        listed = tuple(value for value in values if value is not None)
        if len(listed) < len(values) or depth > _MOST_DEPTH or any(value.shape is None for value in listed):
            raise NotLiftedError
        if listed not in self.lifted:
            made = self._shared(listed) or self._constants(listed) or self._parts(listed) or self._delayed(listed)
            made = made or self._first_apart(listed, depth)
            made = self._operator(listed, depth) if made is None else made
            if made.producer() in self.write.nodes:
                steps = 1 if all(value is listed[0] for value in listed) else len(listed)
                made.shape, made.type = ir.Shape([steps, *_shape(listed[0])]), listed[0].type
            self.lifted[listed] = made
        return self.lifted[listed]

    def _shared(self, values: tuple[ir.Value, ...]) -> ir.Value | None:
        return self.write("Unsqueeze", values[0], [0]) if all(value is values[0] for value in values) else None

    def _constants(self, values: tuple[ir.Value, ...]) -> ir.Value | None:
        arrays = [array for value in values if (array := constant_array(value)) is not None]
        if len(arrays) < len(values) or arrays[0].size > _MOST_STACKED:
            return None
        if any((array.shape, array.dtype) != (arrays[0].shape, arrays[0].dtype) for array in arrays):
            return None
        return self.write.value(np.stack(arrays))

    def _parts(self, values: tuple[ir.Value, ...]) -> ir.Value | None:
        """Neighbours along an axis of one value."""
        parts = [_part(value) for value in values]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts) or any(part[:2] != known[0][:2] or part[3] != known[0][3] for part in known):
            return None
        whole, axis, _, kept = known[0]
        places = [part[2] for part in known]
        if whole.shape is None or any(place < 0 for place in places):
            return None
        if _is_recurrence(whole) and axis == 0:
            self.recurrent = True
        made = whole
        if places != list(range(len(places))) or whole.shape[axis] != len(places):
            if places == list(range(places[0], places[0] + len(places))):
                made = self.write.cut(whole, axis, places[0], places[-1] + 1)
            else:
                made = self.write("Gather", whole, np.array(places, np.int64), axis=axis)
        if axis:
            rank = len(whole.shape)
            made = self.write("Transpose", made, perm=[axis, *(one for one in range(rank) if one != axis)])
        return self.write("Unsqueeze", made, [axis + 1]) if kept else made

    def _delayed(self, values: tuple[ir.Value, ...]) -> ir.Value | None:
        """What a recurrence had before each step: its start, and its states but the last."""
        last = _part(values[-1])
        if last is None or len(values) < 2 or not _is_recurrence(last[0]) or _shape(values[0]) != _shape(values[1]):
            return None
        whole, steps = last[0], len(values) - 1
        for step, value in enumerate(values[1:]):
            if _part(value) != (whole, 0, step, False) and not (step == 0 and value is self._firsts.get(whole)):
                return None
        self.recurrent = True
        earlier = self.write.cut(whole, 0, 0, steps)
        return self.write("Concat", self.write("Unsqueeze", values[0], [0]), earlier, axis=0)

    def _first_apart(self, values: tuple[ir.Value, ...], depth: int) -> ir.Value | None:
        """A first step that folding has made a constant."""
        first, later = constant_array(values[0]), values[1:]
        if first is None or len(values) < 3 or later[0].shape is None or not later[0].shape.is_static():
            return None
        shape = _shape(later[0])
        if first.size > _MOST_STACKED or all(value is later[0] for value in later):
            return None
        rest = self.lift(later, depth + 1)
        return self.write("Concat", np.broadcast_to(first, shape)[None].copy(), rest, axis=0)

    def _operator(self, values: tuple[ir.Value, ...], depth: int) -> ir.Value:
        """The same operator in each step."""
        nodes = [node for value in values if (node := value.producer()) is not None and len(node.outputs) == 1]
        first = nodes[0] if nodes else None
        if first is None or len(nodes) < len(values) or any(not _same(nodes[1], node) for node in nodes[2:]):
            raise NotLiftedError
        if not _same(first, nodes[1]):
            return self._nothing_added(values, nodes[1:], depth)
        if not is_op(
            first, *_ELEMENTWISE, *_REDUCED, "MatMul", "Unsqueeze", "Squeeze", "Transpose", "Reshape", "Concat"
        ):
            raise NotLiftedError
        if is_op(first, "Unsqueeze", "Squeeze", "Reshape", *_REDUCED):
            data = self.lift([node.inputs[0] for node in nodes], depth + 1)
            return self._with_places(nodes, data)
        inputs = [
            self.lift([node.inputs[index] for node in nodes], depth + 1) if first.inputs[index] is not None else None
            for index in range(len(first.inputs))
        ]
        return self._applied(first, inputs)

    def _nothing_added(self, values: tuple[ir.Value, ...], later: list[ir.Node], depth: int) -> ir.Value:
        """A sum to which the first step adds 0, which folding has left out."""
        if not is_op(later[0], "Add"):
            raise NotLiftedError
        ends = [later[-1].inputs[index] for index in (0, 1)]
        for index in sorted((0, 1), key=lambda index: not _is_state(ends[index])):
            states = [node.inputs[index] for node in later]
            others = [values[0], *(node.inputs[1 - index] for node in later)]
            if states[0] is None or states[0].shape is None or not states[0].shape.is_static():
                continue
            zero = self.write.value(np.zeros(_shape(states[0]), np.float32))
            try:
                return self._applied(later[0], [self.lift(others, depth + 1), self.lift([zero, *states], depth + 1)])
            except NotLiftedError:
                continue
        raise NotLiftedError

    def _applied(self, first: ir.Node, inputs: list[ir.Value | None]) -> ir.Value:
        attributes = {name: attribute.value for name, attribute in first.attributes.items()}
        ranks = [0 if value is None or value.shape is None else len(value.shape) for value in inputs]
        if is_op(first, "Transpose"):
            rank = ranks[0] - 1
            perm = attribute_ints(first, "perm") or list(range(rank))[::-1]
            return self.write("Transpose", inputs[0], perm=[0, *(axis + 1 for axis in perm)])
        if is_op(first, "Concat"):
            axis = attribute_int(first, "axis", 0)
            if any(value is None or value.shape is None or value.shape[0] == 1 for value in inputs):
                raise NotLiftedError  # one that does not change would have to be repeated
            return self.write("Concat", *inputs, axis=axis % (ranks[0] - 1) + 1)
        if is_op(first, "MatMul") and min(ranks) < 3:
            raise NotLiftedError
        if is_op(first, "Clip"):
            return self.write("Clip", inputs[0], *(_scalar(node_input) for node_input in first.inputs[1:]))
        aligned = [
            value
            if value is None or rank == max(ranks)
            else self.write("Unsqueeze", value, list(range(1, 1 + max(ranks) - rank)))
            for value, rank in zip(inputs, ranks, strict=True)
        ]
        return self.write(first.op_type, *aligned, **attributes)

    def _with_places(self, nodes: list[ir.Node], data: ir.Value) -> ir.Value:
        """Operators whose second input is a list of axes or sizes."""
        first = nodes[0]
        arrays = [
            None if len(node.inputs) < 2 or node.inputs[1] is None else constant_array(node.inputs[1]) for node in nodes
        ]
        known = [array for array in arrays if array is not None]
        if len(known) < len(arrays) or any(not np.array_equal(array, known[0]) for array in known):
            raise NotLiftedError
        listed = [int(one) for one in known[0].reshape(-1)]
        if is_op(first, "Reshape"):
            if attribute_int(first, "allowzero", 0) and 0 in listed:
                raise NotLiftedError
            return self.write("Reshape", data, [0, *listed])
        moved = [axis if axis < 0 else axis + 1 for axis in listed]
        maker = data.producer()
        if is_op(first, "Squeeze") and maker is not None and is_op(maker, "Unsqueeze") and maker.inputs[1] is not None:
            added = constant_array(maker.inputs[1])
            if added is not None and added.tolist() == moved and maker.inputs[0] is not None:
                return maker.inputs[0]
        attributes = {name: attribute.value for name, attribute in first.attributes.items()}
        return self.write(first.op_type, data, moved, **attributes)


def _scalar(value: ir.Value | None) -> ir.Value | None:
    if value is not None and constant_array(value) is None:
        raise NotLiftedError
    return value


def _same(a: ir.Node, b: ir.Node) -> bool:
    def told(node: ir.Node) -> Any:
        return node.domain, node.op_type, len(node.inputs), {name: one.value for name, one in node.attributes.items()}

    return told(a) == told(b) and all((x is None) == (y is None) for x, y in zip(a.inputs, b.inputs, strict=True))


def _part(value: ir.Value) -> tuple[ir.Value, int, int, bool] | None:
    """Of what it is one place: (whole, axis, place, whether the axis is kept, of size 1)."""
    node = value.producer()
    if node is None or not node.inputs or node.inputs[0] is None or node.inputs[0].shape is None:
        return None
    whole, rank = node.inputs[0], len(node.inputs[0].shape)
    if is_op(node, "Gather"):
        place = None if node.inputs[1] is None else constant_array(node.inputs[1])
        if place is None or place.ndim != 0:
            return None
        axis = attribute_int(node, "axis", 0) % rank
        return whole, axis, _from_front(int(place), whole, axis), False
    if is_op(node, "Slice"):
        arrays = [None if one is None else constant_array(one) for one in node.inputs[1:4]]
        if len(arrays) < 3 or any(array is None or array.size != 1 for array in arrays):
            return None
        begin, end, axis = (int(array.reshape(-1)[0]) for array in arrays if array is not None)
        steps = constant_array(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else None
        if (steps is not None and int(steps.reshape(-1)[0]) != 1) or end != begin + 1:
            return None
        return whole, axis % rank, _from_front(begin, whole, axis % rank), True
    if is_op(node, "Split"):
        axis = attribute_int(node, "axis", 0) % rank
        if (
            value.shape is None
            or value.shape[axis] != 1
            or whole.shape is None
            or whole.shape[axis] != len(node.outputs)
        ):
            return None
        return whole, axis, list(node.outputs).index(value), True
    return None


def _from_front(place: int, whole: ir.Value, axis: int) -> int:
    size = None if whole.shape is None else whole.shape[axis]
    return place + size if place < 0 and isinstance(size, int) else place


def _is_state(value: ir.Value | None) -> bool:
    part = None if value is None else _part(value)
    return part is not None and _is_recurrence(part[0])


def _is_recurrence(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.domain == PRIVATE and node.op_type == RECURRENCE


def _shape(value: ir.Value) -> list[Any]:
    return [] if value.shape is None else [size if isinstance(size, int) else size.value for size in value.shape]
