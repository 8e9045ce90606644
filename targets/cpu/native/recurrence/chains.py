"""Recurrences that a graph has step by step (``torch.export`` writes loops out, and so do we Scan and Loop), as one operator.

A state that each step multiplies and adds to, or of which it takes the greater::

    h1 = a1 * h0 + b1          h = Recurrence(a, b, h0)      all steps' a and b, and all states: [steps, …]
    h2 = a2 * h1 + b2     →    y = f(h, c)
    y1 = f(h1, c1), y2 = …
    y  = Concat(y1, y2, …)

What a step computes of its own part of the inputs, and of the states, is computed for all steps at once (``lift.py``); sums over the state are
then taken along (``readout.py``). That is Mamba's selective scan (Gu and Dao 2023, arXiv:2312.00752), the WKV of RWKV (Peng et al. 2023,
arXiv:2305.13048; its running maximum is a recurrence too) and retention (Sun et al. 2023, arXiv:2307.08621).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgewise.targets.cpu.native.activations import PRIVATE
from edgewise.targets.cpu.native.context import attribute_int, constant_array, is_op
from edgewise.targets.cpu.native.recurrence.lift import RECURRENCE, Lifted, Lifter, NotLiftedError
from edgewise.targets.cpu.native.written.writer import Writer

_LEAST_STEPS = 3
_FORMS = {
    "add": ("Add", "Mul"),
    "max": ("Max", "Add"),
    "sum": ("Add", None),
}  # what a step does last, and what to its state before


@dataclass(frozen=True)
class _Step:
    """``state = factor * before + term`` (or the greater of ``factor + before`` and ``term``); a factor of None is 1, a state before of None 0."""

    node: ir.Node
    factor: ir.Value | None
    before: ir.Value | None
    term: ir.Value

    @property
    def state(self) -> ir.Value:
        return self.node.outputs[0]


def find_recurrences(model: ir.Model) -> Lifted:
    """Put ``Recurrence`` in the place of what steps write out; gives what was lifted for it. Shapes must have been inferred."""
    graph = model.graph
    lifted = Lifted()
    for form in ("max", "add", "sum"):  # the running maximum of WKV goes into the factors of its sums
        failed: set[ir.Node] = set()
        while (chain := _longest(graph, form, failed)) is not None:
            # What is read after the last step may look like a step: the last state itself is needed by nobody.
            if any(_rolled(graph, form, chain[: len(chain) - more], lifted) for more in range(min(2, len(chain) - 2))):
                continue
            failed |= {step.node for step in chain}
    if lifted.values:
        model.opset_imports[PRIVATE] = 1
        _join_results(graph, lifted)
    return lifted


def _candidates(node: ir.Node, form: str) -> Iterator[_Step]:
    """In which ways a node can be a step."""
    outer, inner = _FORMS[form]
    if not is_op(node, outer) or len(node.inputs) != 2 or node.outputs[0].dtype is not ir.DataType.FLOAT:
        return
    for one, other in ((0, 1), (1, 0)):
        product, term = node.inputs[one], node.inputs[other]
        maker = None if product is None else product.producer()
        if product is None or term is None:
            continue
        if inner is None:
            if _like(product, node.outputs[0]):
                yield _Step(node, None, product, term)
        elif is_op(maker, inner) and maker is not None:
            for state, factor in ((0, 1), (1, 0)):
                before, given = maker.inputs[state], maker.inputs[factor]
                if before is not None and given is not None and _like(before, node.outputs[0]):
                    yield _Step(node, given, before, term)


def _like(value: ir.Value, state: ir.Value) -> bool:
    """Whether it can be the state before: of as many axes."""
    return value.shape is not None and state.shape is not None and len(value.shape) == len(state.shape)


def _longest(graph: ir.Graph, form: str, failed: set[ir.Node]) -> list[_Step] | None:
    """The longest chain of steps that has not been tried."""
    depths: dict[ir.Node, tuple[int, _Step]] = {}
    best: _Step | None = None
    for node in graph:
        for step in _candidates(node, form):
            before = _maker(step.before)
            depth = 1 + (depths[before][0] if before in depths else 0)
            if node not in depths or depth > depths[node][0]:
                depths[node] = (depth, step)
        if node in depths and node not in failed and (best is None or depths[node][0] > depths[best.node][0]):
            best = depths[node][1]
    if best is None or depths[best.node][0] < _LEAST_STEPS:
        return None
    chain = [best]
    while (before := _maker(chain[-1].before)) in depths and before is not None:
        chain.append(depths[before][1])
    return chain[::-1]


def _rolled(graph: ir.Graph, form: str, chain: list[_Step], lifted: Lifted) -> bool:
    """Replace a chain; the first of its steps may be written in another way than the others."""
    function = "max" if form == "max" else "add"
    first, later = chain[0], chain[1:]
    starts = [[zero, first] for zero in _from_nothing(_maker(first.before), first.factor)]
    starts += [[zero] for zero in _from_nothing(first.node, later[0].factor)]
    # A constant is the state at the beginning rather than a factor of one step.
    starts += [[zero, first] for zero in _term_alone(first)]
    starts += [[one] for one in sorted(_candidates(first.node, form), key=_begins_with_computed)]
    starts += [[]] * (len(later) >= _LEAST_STEPS)
    return any(_replaced(graph, function, [*start, *later], lifted) for start in starts)


def _begins_with_computed(step: _Step) -> bool:
    return step.before is not None and constant_array(step.before) is None


def _maker(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()


def _term_alone(step: _Step) -> Iterator[_Step]:
    """A first step of a state that was 0, whose term is all that folding has left."""
    node, other = _maker(step.before), _maker(step.term)
    if step.before is None or node is None or other is None or node.op_identifier() != other.op_identifier():
        return
    if len(node.outputs) == 1 and not step.before.is_graph_output():
        yield _Step(node, step.factor, None, step.before)


def _from_nothing(node: ir.Node | None, factor: ir.Value | None) -> Iterator[_Step]:
    """A first step whose state was 0: folding has left the term and a 0."""
    if node is None or not is_op(node, "Add"):
        return
    for one, other in ((0, 1), (1, 0)):
        zero, term = node.inputs[one], node.inputs[other]
        array = None if zero is None else constant_array(zero)
        if zero is None or term is None or array is None or array.any() or not _like(zero, node.outputs[0]):
            continue
        yield _Step(node, factor, None, term)


def _replaced(graph: ir.Graph, function: str, chain: list[_Step], lifted: Lifted) -> bool:
    write = Writer(f"{chain[-1].node.name}.recurrence")
    lifter = Lifter(write, lifted)
    state = chain[-1].state
    try:
        if all(constant_array(step.term) is not None for step in chain):
            raise NotLiftedError
        terms = _aligned(write, lifter.lift([step.term for step in chain]), state)
        if chain[0].factor is None:
            factors = write("Unsqueeze", np.ones((1,) * _rank(state), np.float32), [0])
        else:
            factors = _aligned(write, lifter.lift([step.factor for step in chain]), state)
    except NotLiftedError:
        write.discard()
        return False
    attributes: dict[str, str | int] = {"function": function, "steps": len(chain)}
    states = write.add(ir.node(RECURRENCE, [factors, terms, chain[0].before], attributes, domain=PRIVATE))
    states.type = state.type
    if state.shape is not None:
        states.shape = ir.Shape([len(chain), *state.shape])
    entries = [write("Gather", states, np.array(index, np.int64), axis=0) for index in range(len(chain))]
    _insert(graph, write)
    lifted.values.update(lifter.lifted)
    for step, entry in zip(chain, entries, strict=True):
        if step.term is step.state:  # no step of its own: its readers may read the term
            lifted.firsts[states] = step.state
            continue
        entry.type, entry.shape = step.state.type, step.state.shape
        name = step.state.name
        if step.state.is_graph_output():
            step.state.name, entry.name = f"{name}.step", name
        ir.convenience.replace_all_uses_with(step.state, entry, replace_graph_outputs=True)
    return True


def _rank(value: ir.Value) -> int:
    return 0 if value.shape is None else len(value.shape)


def _aligned(write: Writer, value: ir.Value, state: ir.Value) -> ir.Value:
    """With the axes that broadcasting would add after the steps."""
    missing = 1 + _rank(state) - _rank(value)
    if missing < 0:
        raise NotLiftedError
    if missing == 0:
        return value
    made = write("Unsqueeze", value, list(range(1, 1 + missing)))
    if value.shape is not None:
        made.shape, made.type = ir.Shape([value.shape[0], *[1] * missing, *value.shape[1:]]), value.type
    return made


def _join_results(graph: ir.Graph, lifted: Lifted) -> None:
    """What is computed of each state and put side by side, computed of all states."""
    for node in list(graph):
        if not is_op(node, "Concat") or len(node.inputs) < _LEAST_STEPS:
            continue
        write = Writer(f"{node.name}.recurrence")
        lifter = Lifter(write, lifted)
        try:
            made = lifter.lift(list(node.inputs))
        except NotLiftedError:
            write.discard()
            continue
        entry, output = node.inputs[0], node.outputs[0]
        rank = 0 if entry is None or entry.shape is None else len(entry.shape)
        axis = attribute_int(node, "axis", 0) % max(rank, 1)
        if not lifter.recurrent or entry is None or entry.shape is None or entry.shape[axis] != 1:
            write.discard()
            continue
        squeezed = write("Squeeze", made, [axis + 1])  # [steps, …] without the axis along which they go
        order = list(range(1, rank))
        result = write("Transpose", squeezed, perm=[*order[:axis], 0, *order[axis:]]) if axis else squeezed
        result.type, result.shape, name = output.type, output.shape, output.name
        _insert(graph, write)
        lifted.values.update(lifter.lifted)
        output.name, result.name = f"{name}.steps", name
        ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
        graph.remove(node, safe=True)


def _insert(graph: ir.Graph, write: Writer) -> None:
    graph.extend(write.nodes)
    graph.sort()
