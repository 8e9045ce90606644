"""If, Loop and Scan whose bounds are known: the bodies, as often as they run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgewise.targets.cpu.native.context import attribute_int, attribute_ints, constant_array, is_op
from edgewise.targets.cpu.native.value import Refusal
from edgewise.targets.cpu.native.written.writer import Writer, given, need, shape_of

_MOST = 20_000  # nodes that one loop may become


def if_(node: ir.Node, write: Writer) -> list[ir.Value]:
    """The branch that is taken; both, and a choice, when that depends on computed values."""
    condition = need(node, 0)
    known = constant_array(condition)
    branches = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
    if known is not None:
        return write.adopt(branches[0 if known.reshape(-1)[0] else 1], [])
    shapes = [[value.shape for value in branch.outputs] for branch in branches]
    if any(a is None or not a.is_static() or a != b for a, b in zip(*shapes, strict=True)):
        raise Refusal("branches whose outputs are of different or unknown sizes")
    then, other = (write.adopt(branch, []) for branch in branches)
    return [write("Where", condition, a, b) for a, b in zip(then, other, strict=True)]


def loop(node: ir.Node, write: Writer) -> list[ir.Value]:
    """A known number of runs; one that may end earlier keeps its state from then on."""
    body = node.attributes["body"].as_graph()
    trips, condition = given(node, 0), given(node, 1)
    count, counted = _runs(trips)
    _check_size(count, body)
    goes_on = None if condition is None else constant_array(condition)
    if goes_on is not None and not goes_on.reshape(-1)[0]:
        count = 0
    ends = counted or (condition is not None and goes_on is None) or not _always(body)
    state: list[ir.Value | None] = list(node.inputs[2:])
    lists: list[list[ir.Value]] = [[] for _ in range(len(body.outputs) - 1 - len(state))]
    if ends and lists:
        raise Refusal("results of each run of a loop whose number of runs only a run knows; keep them in its state")
    active = condition if ends and goes_on is None else None
    for step in range(count):
        if counted and trips is not None:
            more = write("Less", write.value(step), write.reshape(trips, []))
            active = more if active is None else write("And", active, more)
        made = write.adopt(
            body, [write.value(step), write.value(np.ones((), np.bool_)) if active is None else active, *state]
        )
        new: list[ir.Value | None] = list(made[1 : 1 + len(state)])
        if active is not None:
            new = [write("Where", active, a, b) for a, b in zip(new, state, strict=True)]
        if ends:
            active = made[0] if active is None else write("And", active, made[0])
        state = new
        for values, value in zip(lists, made[1 + len(state) :], strict=True):
            values.append(value)
    return [*_carried(state), *(_stacked(write, values, 0) for values in lists)]


def _runs(trips: ir.Value | None) -> tuple[int, bool]:
    """How often at most, and whether only a run knows how often."""
    limit = None if trips is None else constant_array(trips)
    if limit is not None:
        return max(int(limit.reshape(-1)[0]), 0), False
    bound = None if trips is None else _bound(trips)
    if bound is None:
        raise Refusal(
            "a number of runs that is not known; make it a constant, or the lesser (Min) of one and of what is computed"
        )
    return max(bound, 0), True


def _bound(value: ir.Value) -> int | None:
    """The greatest number that a value can be, where Min with a constant says it."""
    node = value.producer()
    if node is None:
        return None
    if is_op(node, "Identity", "Squeeze", "Unsqueeze", "Reshape", "Cast") and node.inputs[0] is not None:
        return _bound(node.inputs[0])
    if not is_op(node, "Min"):
        return None
    arrays = [None if one is None else constant_array(one) for one in node.inputs]
    known = [
        int(array.reshape(-1)[0])
        for array in arrays
        if array is not None and array.size == 1 and array.dtype.kind in "iu"
    ]
    return min(known, default=None)


def _carried(state: Sequence[ir.Value | None]) -> list[ir.Value]:
    return [value for value in state if value is not None]


def _check_size(count: int, body: ir.Graph) -> None:
    if count * max(len(body), 1) > _MOST:
        raise Refusal(f"{count} runs of a body of {len(body)} nodes")


def _always(body: ir.Graph) -> bool:
    """Whether a body never asks for an end."""
    output = body.outputs[0]
    for _ in range(len(body) + 1):
        producer = output.producer()
        if producer is None or producer.op_type not in ("Identity", "Constant"):
            break
        if producer.op_type == "Constant":
            return (
                bool(producer.attributes["value"].as_tensor().numpy().reshape(-1)[0])
                if "value" in producer.attributes
                else False
            )
        if producer.inputs[0] is None:
            return False
        output = producer.inputs[0]
    if output is body.inputs[1]:
        return True
    array = constant_array(output)
    return array is not None and bool(array.reshape(-1)[0])


def _stacked(write: Writer, values: Sequence[ir.Value], axis: int) -> ir.Value:
    if not values:
        raise Refusal("a loop that does not run, whose results would be of no size")
    return write("Concat", *(write("Unsqueeze", value, [axis]) for value in values), axis=axis)


def scan(node: ir.Node, write: Writer) -> list[ir.Value]:
    """Once for each entry along an axis of its inputs."""
    body, count = node.attributes["body"].as_graph(), attribute_int(node, "num_scan_inputs", 1)
    if node.version is not None and node.version < 9:
        raise Refusal("Scan of opset 8, which has a batch")
    inputs = [need(node, index) for index in range(len(node.inputs))]
    state, scanned = inputs[: len(inputs) - count], inputs[len(inputs) - count :]
    results = len(body.outputs) - len(state)
    axes = _axes(node, "scan_input_axes", [len(shape_of(value)) for value in scanned])
    length = shape_of(scanned[0])[axes[0]]
    _check_size(length, body)
    back = attribute_ints(node, "scan_input_directions") or [0] * count
    lists: list[list[ir.Value]] = [[] for _ in range(results)]
    for step in range(length):
        places = [length - 1 - step if turned else step for turned in back]
        entries = [write.pick(value, axis, at) for value, axis, at in zip(scanned, axes, places, strict=True)]
        made = write.adopt(body, [*state, *entries])
        state = made[: len(state)]
        for values, value in zip(lists, made[len(state) :], strict=True):
            values.append(value)
    turned = attribute_ints(node, "scan_output_directions") or [0] * results
    given_axes = attribute_ints(node, "scan_output_axes") or [0] * results
    if any(axis < 0 for axis in given_axes):
        raise Refusal("scan_output_axes that count from the end")
    stacked = [
        _stacked(write, values[::-1] if back_to_front else values, axis)
        for values, back_to_front, axis in zip(lists, turned, given_axes, strict=True)
    ]
    return [*state, *stacked]


def _axes(node: ir.Node, name: str, ranks: Sequence[int]) -> list[int]:
    listed = attribute_ints(node, name) or [0] * len(ranks)
    return [axis % rank for axis, rank in zip(listed, ranks, strict=True)]


RULES = {"If": if_, "Loop": loop, "Scan": scan}
