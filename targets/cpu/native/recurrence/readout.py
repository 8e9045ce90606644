"""Sums over a recurrence's state, taken along while it is there: no state but the last is written to memory.

The state's last two axes become keys (summed) and lanes::

    b = Mul(k, v)                        b, b2 = k, v      each of one axis, so that the steps' products are not in memory either
    a = Exp(Mul(delta, A))           →   a, a2 = delta, A
    h = Recurrence(a, b, h0)             y = Recurrence(a, b, a2, b2, h0, c, u)
    y = ReduceSum(Mul(h, c))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgewise.targets.cpu.native.activations import PRIVATE
from edgewise.targets.cpu.native.context import (
    attribute_int,
    attribute_ints,
    attribute_text,
    constant_array,
    is_op,
    only_reader,
    readers,
)
from edgewise.targets.cpu.native.recurrence.lift import RECURRENCE, Lifted
from edgewise.targets.cpu.native.written.writer import Writer, given, need

Lists = dict[ir.Value, tuple[ir.Value, ...]]  # of what was lifted, each step's value

_MOST_KEYS = 1024  # as runtime/native/src/ops/recurrence.cpp
_MOST_FACTORS = 8


@dataclass(frozen=True)
class _Readout:
    """A sum over one axis of a state.

    Attributes:
        result: what is computed, [steps, …] with or without the axis.
        axis: which, of [steps, …].
        weights: what the state is multiplied with, of as many axes, 1 where it is repeated.
        kept: whether the result has the axis, of size 1.
        bonus: what this step's term is multiplied with, where the sum is over the state before it.
        term: in the place of the recurrence's, where there is one step more.
    """

    result: ir.Value
    axis: int
    weights: ir.Value
    kept: bool
    bonus: ir.Value | None = None
    term: ir.Value | None = None


def read_out(graph: ir.Graph, lifted: Lifted) -> None:
    """Take sums along, where a recurrence has one reader that sums, and others that want its last state alone."""
    lists = {value: listed for listed, value in lifted.values.items()}
    for node in list(graph):
        if node.domain == PRIVATE and node.op_type == RECURRENCE and attribute_text(node, "function", "") == "add":
            write = Writer(f"{node.name}.readout")
            if not _taken_along(graph, node, write, lists):
                write.discard()


def _taken_along(graph: ir.Graph, node: ir.Node, write: Writer, lists: Lists) -> bool:
    states = node.outputs[0]
    if states.shape is None or len(states.shape) < 3 or states.is_graph_output():
        return False
    lasts = [reader for reader in readers(states) if _is_last(reader, attribute_int(node, "steps", 0))]
    others = [reader for reader in readers(states) if reader not in lasts]
    found = (
        _sum_of(write, states, others[0]) or _sum_before(write, node, others[0], lists) if len(others) == 1 else None
    )
    size = None if found is None else states.shape[found.axis]
    if found is None or not isinstance(size, int) or size > _MOST_KEYS:
        return False
    if found.term is not None and lasts:
        return False
    rank = len(states.shape)
    order = list(range(rank))
    if found.axis == rank - 1:
        order[-2:] = order[:-3:-1]
    elif found.axis != rank - 2:
        return False
    _fuse(graph, node, write, found, order, lasts)
    return True


def _is_last(reader: ir.Node, steps: int) -> bool:
    place = None if not is_op(reader, "Gather") or reader.inputs[1] is None else constant_array(reader.inputs[1])
    return place is not None and place.ndim == 0 and int(place) == steps - 1 and attribute_int(reader, "axis", 0) == 0


def _sum_of(write: Writer, state: ir.Value, reader: ir.Node) -> _Readout | None:
    """A product of matrices with one row or column, or a product element by element and a sum."""
    rank = 0 if state.shape is None else len(state.shape)
    if is_op(reader, "MatMul"):
        side = 0 if reader.inputs[0] is state else 1
        other = reader.inputs[1 - side]
        single = -1 if side == 0 else -2
        if other is None or other.shape is None or len(other.shape) != rank or other.shape[single] != 1:
            return None
        turned = _turned(write, other)
        return _Readout(reader.outputs[0], rank - 1 if side == 0 else rank - 2, turned, kept=True)
    if not is_op(reader, "Mul"):
        return None
    total = only_reader(reader.outputs[0])
    other = reader.inputs[1] if reader.inputs[0] is state else reader.inputs[0]
    if total is None or not is_op(total, "ReduceSum") or other is None or other.shape is None or other is state:
        return None
    axes = None if len(total.inputs) < 2 or total.inputs[1] is None else constant_array(total.inputs[1])
    if axes is None or axes.size != 1:
        return None
    missing = rank - len(other.shape)
    if missing < 0 or (missing and _size(other, 0) == state.shape[0] if state.shape is not None else False):
        return None
    weights = write("Unsqueeze", other, list(range(1, 1 + missing))) if missing else other
    weights.shape = ir.Shape([other.shape[0], *[1] * missing, *other.shape[1:]])
    return _Readout(
        total.outputs[0], int(axes.reshape(-1)[0]) % rank, weights, kept=bool(attribute_int(total, "keepdims", 1))
    )


def _size(value: ir.Value, axis: int) -> object:
    return None if value.shape is None or not len(value.shape) else value.shape[axis]


def _sum_before(write: Writer, node: ir.Node, reader: ir.Node, lists: Lists) -> _Readout | None:
    """``c * (u * b + h)`` with the states before each step, as RWKV reads its own."""
    if not is_op(reader, "Slice"):
        return None
    joined = only_reader(reader.outputs[0])
    if (
        joined is None
        or not is_op(joined, "Concat")
        or attribute_int(joined, "axis", 0) != 0
        or len(joined.inputs) != 2
    ):
        return None
    start = joined.inputs[0].producer() if joined.inputs[0] is not None else None
    if start is None or not is_op(start, "Unsqueeze"):
        array = None if joined.inputs[0] is None else constant_array(joined.inputs[0])
        begin = np.zeros(1) if given(node, 2) is None else constant_array(need(node, 2))
        if (
            array is None
            or begin is None
            or not np.array_equal(array.reshape(-1), np.broadcast_to(begin.reshape(-1), array.size))
        ):
            return None
    elif start.inputs[0] is not given(node, 2):
        return None
    added = only_reader(joined.outputs[0])
    if added is None or not is_op(added, "Add"):
        return None
    other = added.inputs[1] if added.inputs[0] is joined.outputs[0] else added.inputs[0]
    product = None if other is None else other.producer()
    total = only_reader(added.outputs[0])
    if product is None or total is None or not is_op(product, "Mul"):
        return None
    places = [index for index in (0, 1) if _term_of_more(node, product.inputs[index], lists) is not None]
    if not places:
        return None
    bonus, term = product.inputs[1 - places[0]], product.inputs[places[0]]
    found = _sum_of(write, added.outputs[0], total)
    if found is None or bonus is None or bonus.shape is None or node.outputs[0].shape is None:
        return None
    if len(bonus.shape) != len(node.outputs[0].shape):
        return None
    return _Readout(
        found.result, found.axis, found.weights, found.kept, bonus, term if term is not node.inputs[1] else None
    )


def _term_of_more(node: ir.Node, value: ir.Value | None, lists: Lists) -> ir.Value | None:
    """The recurrence's term, or that with one step more: the state after the last step is needed by nobody, and was left out."""
    own = node.inputs[1]
    if value is None or own is None or value is own:
        return value
    return value if value in lists and own in lists and lists[value][:-1] == lists[own] else None


def _turned(write: Writer, value: ir.Value) -> ir.Value:
    shape = [] if value.shape is None else list(value.shape)
    order = list(range(len(shape)))
    order[-2:] = order[:-3:-1]
    made = write("Transpose", value, perm=order)
    made.type, made.shape = value.type, ir.Shape([shape[axis] for axis in order])
    return made


def _fuse(
    graph: ir.Graph, node: ir.Node, write: Writer, found: _Readout, order: Sequence[int], lasts: Sequence[ir.Node]
) -> None:
    factor, term, start = (given(node, index) for index in range(3))
    steps = attribute_int(node, "steps", 0)
    if found.term is not None and factor is not None:
        term, steps = found.term, steps + 1
        if _size(factor, 0) != 1:  # the last state is not read: any factor does
            factor = write("Concat", factor, write.cut(factor, 0, 0, 1), axis=0)
    if factor is None or term is None:
        raise AssertionError
    rank = len(order)
    whole = list(range(rank))
    terms = _two_factors(write, _Factor(term, tuple(whole)), order) or (_moved(write, term, whole, order), None)
    scales = _exponents(write, factor, order) or (_moved(write, factor, whole, order), None)
    inner = [axis - 1 for axis in order[1:]]
    begin = None if start is None else _moved(write, start, list(range(rank - 1)), inner)
    weights = _moved(write, found.weights, whole, order)
    bonus = None if found.bonus is None else _moved(write, found.bonus, whole, order)
    operands = [scales[0], terms[0], scales[1], terms[1], begin, weights, bonus]
    attributes: dict[str, str | int] = {"function": "add", "steps": steps}
    y, last = write.added(ir.node(RECURRENCE, operands, attributes, domain=PRIVATE, num_outputs=2))
    result = found.result
    if order[-1] != rank - 1:
        y = write("Transpose", y, perm=list(order))
        last = write("Transpose", last, perm=inner)
    made = y if found.kept else write("Squeeze", y, [found.axis])
    for old, new in ((result, made), *((reader.outputs[0], last) for reader in lasts)):
        used = write("Identity", new)
        used.type, used.shape, name = old.type, old.shape, old.name
        old.name, used.name = f"{name}.states", name
        ir.convenience.replace_all_uses_with(old, used, replace_graph_outputs=True)
    graph.extend(write.nodes)
    graph.sort()


def _moved(write: Writer, value: ir.Value, axes: Sequence[int], order: Sequence[int]) -> ir.Value:
    return value if list(order) == list(axes) else write("Transpose", value, perm=list(order))


# -- products of what has one axis each


@dataclass(frozen=True)
class _Factor:
    """Part of a product: a value, and which of its axes each axis of the product is (None: it has none)."""

    value: ir.Value
    axes: tuple[int | None, ...]

    def along(self, axis: int) -> bool:
        """Whether it differs along an axis of the product."""
        own = self.axes[axis]
        return own is not None and self.value.shape is not None and self.value.shape[own] != 1


def _exponents(write: Writer, factor: ir.Value, order: Sequence[int]) -> tuple[ir.Value, ir.Value] | None:
    """Of e to the power of a product, the product as two."""
    found = _factors(_Factor(factor, tuple(range(len(order)))))
    maker = found[0].value.producer()
    if len(found) > 1 or maker is None or not is_op(maker, "Exp") or maker.inputs[0] is None:
        return None
    return _two_factors(write, _Factor(maker.inputs[0], found[0].axes), order)


def _two_factors(write: Writer, whole: _Factor, order: Sequence[int]) -> tuple[ir.Value, ir.Value] | None:
    """A product as two, one without the keys' axis or the lanes' (in this order of axes); None where that is not so."""
    found = _factors(whole)
    if len(found) < 2 or len(found) > _MOST_FACTORS:
        return None
    lanes = [one for one in found if not one.along(order[-2])]
    keys = [one for one in found if one.along(order[-2])]
    if (
        not lanes
        or not keys
        or (any(one.along(order[-1]) and one.along(order[-2]) for one in keys) and not _small(keys))
    ):
        return None
    return _product(write, lanes, order), _product(write, keys, order)


def _small(factors: Sequence[_Factor]) -> bool:
    """Whether nothing in it differs from step to step: A of a selective scan, say."""
    return not any(one.along(0) for one in factors)


def _factors(one: _Factor) -> list[_Factor]:
    """A product's parts, seen through what only moves axes."""
    node = one.value.producer()
    if node is None:
        return [one]
    if is_op(node, "Transpose") and node.inputs[0] is not None:
        perm = attribute_ints(node, "perm") or []
        return (
            _factors(_Factor(node.inputs[0], tuple(None if axis is None else perm[axis] for axis in one.axes)))
            if perm
            else [one]
        )
    if is_op(node, "Unsqueeze") and node.inputs[0] is not None and node.inputs[0].shape is not None:
        return _before_unsqueeze(node, one) or [one]
    if not is_op(node, "Mul", "MatMul") or any(value is None or value.shape is None for value in node.inputs):
        return [one]
    left, right = (value for value in node.inputs if value is not None)
    if is_op(node, "MatMul") and (_size(left, -1) != 1 or len(left.shape or ()) != len(right.shape or ())):
        return [one]  # with one column and one row it is a product of these
    rank = max(len(left.shape or ()), len(right.shape or ()))
    made = []
    for value in (left, right):
        missing = rank - len(value.shape or ())
        axes = tuple(None if axis is None or axis < missing else axis - missing for axis in one.axes)
        made += _factors(_Factor(value, axes))
    return made


def _before_unsqueeze(node: ir.Node, one: _Factor) -> list[_Factor] | None:
    given, places = node.inputs[0], None if node.inputs[1] is None else constant_array(node.inputs[1])
    if given is None or given.shape is None or places is None:
        return None
    rank = len(given.shape) + places.size
    new = {int(axis) % rank for axis in places.reshape(-1)}
    own = {axis: index for index, axis in enumerate(axis for axis in range(rank) if axis not in new)}
    return _factors(_Factor(given, tuple(None if axis is None else own.get(axis) for axis in one.axes)))


def _product(write: Writer, factors: Sequence[_Factor], order: Sequence[int]) -> ir.Value:
    """The factors as one value of the product's axes, in this order, 1 where it is repeated."""
    made: ir.Value | None = None
    for one in factors:
        axes = [one.axes[axis] for axis in order]
        present = [axis for axis in axes if axis is not None]
        value = one.value if present == sorted(present) else write("Transpose", one.value, perm=present)
        missing = [index for index, axis in enumerate(axes) if axis is None]
        value = write("Unsqueeze", value, missing) if missing else value
        made = value if made is None else write("Mul", made, value)
    if made is None:
        raise AssertionError
    return made
