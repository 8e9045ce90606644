"""If, Loop and Scan, written out before anything is converted: Core ML then sees straight-line code, whatever its unit.

An ``If`` whose condition is a constant is one of its branches (constant folding does that). One on data computes both branches and
selects; a ``Loop`` or ``Scan`` of known length is its body so many times.

    y = If(c){then: a, else: b}      ->  y = Where(c, a, b)
    v = Loop(2, v0){v: f(v)}         ->  v = f(f(v0))
    v = Loop(2, c, v0){c: g, v: f}   ->  v1 = Where(c, f(v0), v0); c1 = And(c, g); v = Where(c1, f(v1), v1)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgewise.targets.coreml.node import constant
from edgewise.targets.coreml.refusal import Refusal

OPERATORS = ("If", "Loop", "Scan")
_MOST_STEPS = 1024
_MOST_NODES = 20_000
_FIRST_WITH_AXES = 13  # as an input of Unsqueeze


def write_out(model: ir.Model) -> bool:
    """Replace what can be; gives whether there was any. Bodies may hold more of them: call it again."""
    found = [node for node in model.graph if node.domain == "" and node.op_type in OPERATORS and why_not(node) is None]
    for node in found:
        results = _WRITERS[node.op_type](node)
        for output, result in zip(node.outputs, results, strict=True):
            _replace(output, result)
        model.graph.remove(node, safe=True)
    return bool(found)


def why_not(node: ir.Node) -> Refusal | None:
    """Why a node cannot be written out; None when it can."""
    odd = next(
        (output for output in node.outputs if output.type is not None and not isinstance(output.type, ir.TensorType)),
        None,
    )
    if odd is not None:
        return Refusal(f"{odd.type}", "tensors", "Use tensors of fixed size instead", f"output {odd.name}")
    if node.op_type != "If" and None in node.inputs[2 if node.op_type == "Loop" else 0 :]:
        return Refusal("an input that is left out", "every value given", "Export with opset 9 or later", "inputs")
    if node.op_type == "If":
        return _why_not_if(node)
    return _why_not_loop(node) if node.op_type == "Loop" else _why_not_scan(node)


def _why_not_if(node: ir.Node) -> Refusal | None:
    for value, other in zip(_body(node, "then_branch").outputs, _body(node, "else_branch").outputs, strict=True):
        if value.dtype is None or _fixed(value) is None or _fixed(value) != _fixed(other) or value.dtype != other.dtype:
            return Refusal(
                f"branches that give {value.dtype}{value.shape} and {other.dtype}{other.shape}",
                "branches whose outputs have the same dtype and the same fixed shape: both are computed, then one is selected",
                "Export with fixed shapes, or make the condition a constant",
                f"output {value.name}",
            )
    return None


def _why_not_loop(node: ir.Node) -> Refusal | None:
    count, body = _trips(node), _body(node, "body")
    if count is None:
        return Refusal(
            "a number of iterations known at run time only", "a constant number: the body is written out so many times",
            "Export with fixed shapes, or bound the loop by a constant", "input M",
        )  # fmt: skip
    stays = len(node.inputs) - 2
    if len(body.outputs) > 1 + stays and (not count or _computed_condition(node)):
        return Refusal(
            "outputs per iteration of a loop that may end early", "a loop over all its iterations",
            "Fill a tensor of fixed size in the loop instead", "output of the body",
        )  # fmt: skip
    for given, made in zip(node.inputs[2:], body.outputs[1 : 1 + stays], strict=True):
        if _computed_condition(node) and (given is None or _fixed(given) is None or _fixed(given) != _fixed(made)):
            return Refusal(
                f"a value that goes from {None if given is None else given.shape} to {made.shape}, in a loop that may end early",
                "the same fixed shape in every iteration", "Export with fixed shapes", f"output {made.name} of the body",
            )  # fmt: skip
    return _too_long(count, body)


def _why_not_scan(node: ir.Node) -> Refusal | None:
    count = _scan_length(node)
    if count is None:
        return Refusal(
            "a number of steps known at run time only", "a fixed one", "Export with fixed shapes", "scan inputs"
        )
    return _too_long(count, _body(node, "body"))


def _too_long(count: int, body: ir.Graph) -> Refusal | None:
    if count <= _MOST_STEPS and count * len(body) <= _MOST_NODES:
        return None
    return Refusal(
        f"{count} iterations of {len(body)} nodes", f"at most {_MOST_STEPS} iterations and {_MOST_NODES} nodes in all",
        "Call the body from the app, with its values as states", "attribute body",
    )  # fmt: skip


def _branches(node: ir.Node) -> list[ir.Value]:
    chosen = [_inline(_body(node, f"{kind}_branch"), [], node, kind) for kind in ("then", "else")]
    return [
        _made(node, "Where", [node.inputs[0], *pair], f"select_{i}") for i, pair in enumerate(zip(*chosen, strict=True))
    ]


def _loop(node: ir.Node) -> list[ir.Value]:
    body, carried = _body(node, "body"), [_given(value) for value in node.inputs[2:]]
    active, computed = node.inputs[1], _computed_condition(node)
    listed: list[list[ir.Value]] = [[] for _ in body.outputs[1 + len(carried) :]]
    for step in range(_trips(node) or 0):
        number, going = _constant(node, np.int64(step), f"{step}"), active or _constant(node, np.True_, f"{step}_going")
        condition, *made = _inline(body, [number, going, *carried], node, str(step))
        kept, each = made[: len(carried)], made[len(carried) :]
        if computed:
            kept = [
                _made(node, "Where", [going, new, old], f"{step}/kept_{i}")
                for i, (new, old) in enumerate(zip(kept, carried, strict=True))
            ]
            active = _made(node, "And", [going, condition], f"{step}/going")
        carried = kept
        for values, value in zip(listed, each, strict=True):
            values.append(value)
    return carried + [_stacked(node, values, 0, f"all_{index}") for index, values in enumerate(listed)]


def _scan(node: ir.Node) -> list[ir.Value]:
    body, streams = _body(node, "body"), _scan_inputs(node)
    carried = [_given(value) for value in node.inputs[: len(node.inputs) - len(streams)]]
    count = _scan_length(node) or 0
    listed: list[list[ir.Value]] = [[] for _ in body.outputs[len(carried) :]]
    for step in range(count):
        slices = []
        for index, (value, axis, backwards) in enumerate(streams):
            place = _constant(node, np.int64(count - 1 - step if backwards else step), f"{step}_place_{index}")
            slices.append(_made(node, "Gather", [value, place], f"{step}/slice_{index}", axis=axis))
        made = _inline(body, [*carried, *slices], node, str(step))
        carried = made[: len(carried)]
        for values, value in zip(listed, made[len(carried) :], strict=True):
            values.append(value)
    axes, directions = (_integers(node, f"scan_output_{kind}", len(listed)) for kind in ("axes", "directions"))
    turned = [values[::-1] if backwards else values for values, backwards in zip(listed, directions, strict=True)]
    return carried + [
        _stacked(node, values, axis, f"all_{i}") for i, (values, axis) in enumerate(zip(turned, axes, strict=True))
    ]


_WRITERS = {"If": _branches, "Loop": _loop, "Scan": _scan}


def _trips(node: ir.Node) -> int | None:
    """How often a loop's body runs, or at most; None when that is known at run time only."""
    first = constant(node.inputs[1])
    if first is not None and not bool(np.ravel(first)[0]):
        return 0
    count = constant(node.inputs[0])
    return None if count is None else max(0, int(np.ravel(count)[0]))


def _computed_condition(node: ir.Node) -> bool:
    """Whether a loop may end before its number of iterations."""
    body = _body(node, "body")
    going = _origin(body.outputs[0])
    value = constant(going)
    always = going is body.inputs[1] if value is None else bool(np.ravel(value)[0])
    given = node.inputs[1]
    return not always or (given is not None and constant(given) is None)


def _origin(value: ir.Value) -> ir.Value:
    while (maker := value.producer()) is not None and maker.op_type == "Identity" and maker.inputs[0] is not None:
        value = maker.inputs[0]
    return value


def _scan_inputs(node: ir.Node) -> list[tuple[ir.Value, int, bool]]:
    """Each stream with its axis and whether it is read backwards."""
    count = node.attributes["num_scan_inputs"].as_int()
    axes, directions = (_integers(node, f"scan_input_{kind}", count) for kind in ("axes", "directions"))
    values = [_given(value) for value in node.inputs[len(node.inputs) - count :]]
    return [(value, axis, bool(back)) for value, axis, back in zip(values, axes, directions, strict=True)]


def _scan_length(node: ir.Node) -> int | None:
    value, axis, _ = _scan_inputs(node)[0]
    length = None if value.shape is None else value.shape[axis]
    return length if isinstance(length, int) and length else None


def _integers(node: ir.Node, name: str, count: int) -> list[int]:
    return [int(item) for item in node.attributes[name].as_ints()] if name in node.attributes else [0] * count


def _body(node: ir.Node, name: str) -> ir.Graph:
    return node.attributes[name].as_graph()


def _given(value: ir.Value | None) -> ir.Value:
    if value is None:
        raise ValueError("a loop's value is left out")
    return value


def _fixed(value: ir.Value) -> list[int] | None:
    array = constant(value)
    dims = list(value.shape or ()) if array is None else list(array.shape)
    known = array is not None or value.shape is not None
    return (
        [int(dim) for dim in dims if isinstance(dim, int)] if known and all(isinstance(d, int) for d in dims) else None
    )


def _inline(body: ir.Graph, arguments: Sequence[ir.Value], before: ir.Node, step: str) -> list[ir.Value]:
    """Put a copy of a graph in front of a node, its inputs replaced; gives its outputs."""
    outer, prefix = _graph(before), f"{before.name}/{step}"
    copy = body.clone(allow_outer_scope_values=True)
    mapping = dict(zip(copy.inputs, arguments, strict=True))
    for formal, actual in mapping.items():
        ir.convenience.replace_all_uses_with(formal, actual)
    outputs = [mapping.get(value, value) for value in copy.outputs]
    copy.outputs.clear()
    for value in list(copy.initializers.values()):
        del copy.initializers[str(value.name)]
        value.name = f"{prefix}/{value.name}"
        outer.register_initializer(value)
    for index, node in enumerate(list(copy)):
        copy.remove(node)
        node.name = f"{prefix}/{node.name or f'{node.op_type}_{index}'}"
        for output in _named(node.outputs):
            output.name = f"{prefix}/{output.name}"
        outer.insert_before(before, node)
    return outputs


def _named(values: Iterable[ir.Value]) -> list[ir.Value]:
    return [value for value in values if value.name]


def _graph(node: ir.Node) -> ir.Graph:
    graph = node.graph
    if not isinstance(graph, ir.Graph):
        raise TypeError(f"{node.name}: a node of no graph")
    return graph


def _made(before: ir.Node, op: str, inputs: Sequence[ir.Value | None], name: str, **attributes: Any) -> ir.Value:
    made = ir.node(op, inputs, attributes=attributes, name=f"{before.name}/{name}")
    made.outputs[0].name = f"{before.name}/{name}"
    _graph(before).insert_before(before, made)
    return made.outputs[0]


def _constant(before: ir.Node, number: np.generic, name: str) -> ir.Value:
    label = f"{before.name}/number_{name}"
    tensor = ir.tensor(np.asarray(number), name=label)
    value = ir.Value(name=label, shape=ir.Shape(()), type=ir.TensorType(tensor.dtype), const_value=tensor)
    _graph(before).register_initializer(value)
    return value


def _stacked(node: ir.Node, values: Sequence[ir.Value], axis: int, name: str) -> ir.Value:
    """The values along a new axis; ``Unsqueeze`` has its axes as an attribute before opset 13."""
    graph = _graph(node)
    label = f"{node.name}/{name}_axis"
    axes: list[ir.Value] = []
    if graph.opset_imports.get("", 1) >= _FIRST_WITH_AXES:
        tensor = ir.tensor(np.array([axis]), name=label)
        axes = [ir.Value(name=label, shape=ir.Shape((1,)), type=ir.TensorType(tensor.dtype), const_value=tensor)]
        graph.register_initializer(axes[0])
    attributes = {} if axes else {"axes": [axis]}
    parts = [
        _made(node, "Unsqueeze", [value, *axes], f"{name}_{index}", **attributes) for index, value in enumerate(values)
    ]
    return _made(node, "Concat", parts, name, axis=axis)


def _replace(output: ir.Value, result: ir.Value) -> None:
    """What reads an output reads the result; a graph's output keeps its name."""
    if result.dtype is None and output.dtype is not None:
        result.dtype = output.dtype
    node = output.producer()
    if node is not None and output.is_graph_output():
        name, output.name = str(output.name), f"{output.name}/before"
        result = _made(node, "Identity", [result], name)
        result.name, result.type, result.shape = name, output.type, output.shape
    ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
