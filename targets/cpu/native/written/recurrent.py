"""LSTM, GRU and RNN over a known number of steps, step by step; the inputs' products for all steps at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgewise.targets.cpu.native.context import attribute_int, attribute_text
from edgewise.targets.cpu.native.value import Refusal
from edgewise.targets.cpu.native.written.writer import Writer, given, need, rank_of, shape_of

_MOST_STEPS = 1024
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_DEFAULT = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_KNOWN = ("Sigmoid", "Tanh", "Relu", "Softplus", "Softsign")


@dataclass
class _Cell:
    """One direction of a layer.

    Attributes:
        kind: LSTM, GRU or RNN.
        functions: of its gates, by name.
        hidden: how many numbers its state has.
        rows: the matrix of the state, turned: [hidden, gates · hidden].
        after: what is added to the state's products: [gates · hidden], or None.
        peepholes: of an LSTM, [3 · hidden], or None.
        after_reset: of a GRU, whether the reset gate comes after the product.
    """

    kind: str
    functions: list[str]
    hidden: int
    rows: ir.Value
    after: ir.Value | None
    peepholes: ir.Value | None
    after_reset: bool

    def step(self, write: Writer, x: ir.Value, state: list[ir.Value]) -> list[ir.Value]:
        """The next state from one step's products [batch, gates · hidden] and the state [batch, hidden] (LSTM: two)."""
        return {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}[self.kind](write, x, state)

    def _part(self, write: Writer, value: ir.Value, index: int, axis: int = 1) -> ir.Value:
        return write.cut(value, axis, index * self.hidden, (index + 1) * self.hidden)

    def _peep(self, write: Writer, gate: ir.Value, cell: ir.Value, index: int) -> ir.Value:
        if self.peepholes is None:
            return gate
        return write("Add", gate, write("Mul", cell, self._part(write, self.peepholes, index, 0)))

    def _sum(self, write: Writer, x: ir.Value, hidden: ir.Value) -> ir.Value:
        total = write("Add", x, write("MatMul", hidden, self.rows))
        return total if self.after is None else write("Add", total, self.after)

    def _rnn(self, write: Writer, x: ir.Value, state: list[ir.Value]) -> list[ir.Value]:
        return [write(self.functions[0], self._sum(write, x, state[0]))]

    def _lstm(self, write: Writer, x: ir.Value, state: list[ir.Value]) -> list[ir.Value]:
        hidden, cell = state
        total = self._sum(write, x, hidden)
        i, o, f, c = (self._part(write, total, index) for index in range(4))
        first, second, third = self.functions
        i, f = (write(first, self._peep(write, gate, cell, index)) for gate, index in ((i, 0), (f, 2)))
        new = write("Add", write("Mul", f, cell), write("Mul", i, write(second, c)))
        o = write(first, self._peep(write, o, new, 1))
        return [write("Mul", o, write(third, new)), new]

    def _gru(self, write: Writer, x: ir.Value, state: list[ir.Value]) -> list[ir.Value]:
        hidden, size = state[0], self.hidden
        gates = write("MatMul", hidden, write.cut(self.rows, 1, 0, 2 * size))
        total = write("Add", write.cut(x, 1, 0, 2 * size), gates)
        if self.after is not None:
            total = write("Add", total, write.cut(self.after, 0, 0, 2 * size))
        z, r = (write(self.functions[0], self._part(write, total, index)) for index in range(2))
        rows = write.cut(self.rows, 1, 2 * size, 3 * size)
        inner = write("MatMul", hidden if self.after_reset else write("Mul", r, hidden), rows)
        if self.after is not None:
            inner = write("Add", inner, write.cut(self.after, 0, 2 * size, 3 * size))
        inner = write("Mul", r, inner) if self.after_reset else inner
        new = write(self.functions[1], write("Add", self._part(write, x, 2), inner))
        return [write("Add", new, write("Mul", z, write("Sub", hidden, new)))]


def recurrent(node: ir.Node, write: Writer) -> list[ir.Value]:
    """All directions of a layer: their outputs of every step, and their last states."""
    kind, batch_first = node.op_type, attribute_int(node, "layout", 0)
    x = need(node, 0)
    if batch_first:
        x = write("Transpose", x, perm=[1, 0, 2])
        given_shape = need(node, 0).shape
        if given_shape is not None:
            x.shape = ir.Shape([given_shape[1], given_shape[0], given_shape[2]])
    steps, _ = _steps_and_batch(x)
    if "clip" in node.attributes or attribute_int(node, "input_forget", 0):
        raise Refusal(f"{kind} with clip or input_forget")
    if steps > _MOST_STEPS or not steps:
        raise Refusal(f"{kind} of {steps} steps, where 1 to {_MOST_STEPS} are taken")
    direction = attribute_text(node, "direction", "forward")
    turned = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
    outputs, states = [], []
    for index, back in enumerate(turned):
        cell = _cell(node, write, index, len(turned))
        made, state = _direction(node, write, cell, x, index, back=back)
        outputs.append(made)
        states.append(state)
    whole = write(
        "Concat", *(write("Unsqueeze", made, [1]) for made in outputs), axis=1
    )  # [steps, directions, batch, hidden]
    last = [
        write("Concat", *(write("Unsqueeze", state[one], [0]) for state in states), axis=0)
        for one in range(len(states[0]))
    ]
    if batch_first:
        whole, last = (
            write("Transpose", whole, perm=[2, 0, 1, 3]),
            [write("Transpose", one, perm=[1, 0, 2]) for one in last],
        )
    return [whole, *last]


def _steps_and_batch(x: ir.Value) -> tuple[int, int]:
    """Of [steps, batch, numbers]; 1 for a batch that is not known, to which a first state of zeros broadcasts."""
    if rank_of(x) != 3 or x.shape is None or not isinstance(x.shape[0], int):
        raise Refusal(f"a number of steps that is not known ({x.name!r})")
    return x.shape[0], x.shape[1] if isinstance(x.shape[1], int) else 1


def _cell(node: ir.Node, write: Writer, index: int, directions: int) -> _Cell:
    kind, gates = node.op_type, _GATES[node.op_type]
    listed = (
        [str(name) for name in node.attributes["activations"].as_strings()]
        if "activations" in node.attributes
        else None
    )
    functions = (listed or _DEFAULT[kind] * directions)[index * len(_DEFAULT[kind]) : (index + 1) * len(_DEFAULT[kind])]
    if any(name not in _KNOWN for name in functions):
        raise Refusal(f"{kind} with the functions {', '.join(functions)}")
    recurrence = need(node, 2)
    hidden = shape_of(recurrence)[-1]
    bias, peepholes = given(node, 3), given(node, 7) if kind == "LSTM" else None
    after = None if bias is None else write.cut(write.pick(bias, 0, index), 0, gates * hidden, 2 * gates * hidden)
    return _Cell(
        kind, functions, hidden, write("Transpose", write.pick(recurrence, 0, index), perm=[1, 0]), after,
        None if peepholes is None else write.pick(peepholes, 0, index), bool(attribute_int(node, "linear_before_reset", 0)),
    )  # fmt: skip


def _direction(
    node: ir.Node, write: Writer, cell: _Cell, x: ir.Value, index: int, *, back: bool
) -> tuple[ir.Value, list[ir.Value]]:
    steps, batch = _steps_and_batch(x)
    weights, bias, lengths = need(node, 1), given(node, 3), given(node, 4)
    products = write("MatMul", x, write("Transpose", write.pick(weights, 0, index), perm=[1, 0]))
    if bias is not None:
        products = write("Add", products, write.cut(write.pick(bias, 0, index), 0, 0, _GATES[cell.kind] * cell.hidden))
    state = [
        _initial(node, write, slot, index, [batch, cell.hidden]) for slot in ((5, 6) if cell.kind == "LSTM" else (5,))
    ]
    made: list[ir.Value | None] = [None] * steps
    for step in reversed(range(steps)) if back else range(steps):
        new = cell.step(write, write.pick(products, 0, step), state)
        result = new[0]
        if lengths is not None:
            active = write("Unsqueeze", write("Greater", lengths, np.int32(step) * np.ones((), np.int32)), [1])
            result = write("Where", active, new[0], np.zeros((), np.float32))
            new = [write("Where", active, a, b) for a, b in zip(new, state, strict=True)]
        state, made[step] = new, write("Unsqueeze", result, [0])
    return write("Concat", *made, axis=0), state


def _initial(node: ir.Node, write: Writer, slot: int, index: int, sizes: list[int]) -> ir.Value:
    value = given(node, slot)
    if value is None:
        return write("Identity", np.zeros(sizes, np.float32))
    if attribute_int(node, "layout", 0):
        value = write("Transpose", value, perm=[1, 0, 2])
    return write.pick(value, 0, index)


RULES = dict.fromkeys(_GATES, recurrent)
