"""LSTM, GRU and RNN: each direction as one operator of any number of steps, the inputs' products for all steps at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgewise.targets.cpu.native.activations import PRIVATE
from edgewise.targets.cpu.native.context import attribute_float, attribute_int, attribute_text
from edgewise.targets.cpu.native.value import Refusal
from edgewise.targets.cpu.native.written.writer import Writer, given, need, rank_of, shape_of

_WIDTH = 16  # units in a panel of the operator
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_DEFAULT = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_KNOWN = ("Sigmoid", "Tanh", "Relu", "Softplus", "Softsign")


@dataclass(frozen=True)
class _Layer:
    """What all directions have in common.

    Attributes:
        node: LSTM, GRU or RNN.
        write: its writer.
        x: the inputs, [steps, batch, numbers].
        hidden: how many numbers a state has.
        batch_first: the layout of inputs, results and states.
    """

    node: ir.Node
    write: Writer
    x: ir.Value
    hidden: int
    batch_first: bool

    @property
    def kind(self) -> str:
        return self.node.op_type

    @property
    def gates(self) -> int:
        return _GATES[self.kind]

    @property
    def units(self) -> int:
        """The state's numbers in whole panels."""
        return -(-self.hidden // _WIDTH) * _WIDTH

    def part(self, slot: int, index: int) -> ir.Value | None:
        """An input's part for one direction."""
        value = given(self.node, slot)
        return None if value is None else self.write.pick(value, 0, index)

    def padded(self, value: ir.Value, gates: int, inner: int | None = None) -> ir.Value:
        """[gates · hidden, inner] with each gate filled up to whole panels."""
        sizes = [] if inner is None else [inner]
        if self.units == self.hidden:
            return value
        write = self.write
        each = write.reshape(value, [gates, self.hidden, *sizes])
        rank = 2 + len(sizes)
        pads = [0] * rank + [0, self.units - self.hidden, *[0] * len(sizes)]
        return write.reshape(write("Pad", each, pads, np.zeros((), np.float32)), [gates * self.units, *sizes])

    def panels(self, index: int) -> ir.Value:
        """The state's matrix: [gates · panels, hidden, 16]."""
        matrix = self.padded(self.write.pick(need(self.node, 2), 0, index), self.gates, self.hidden)
        apart = self.write.reshape(matrix, [self.gates * self.units // _WIDTH, _WIDTH, self.hidden])
        return self.write("Transpose", apart, perm=[0, 2, 1])

    def products(self, index: int, *, after_reset: bool) -> tuple[ir.Value, ir.Value | None]:
        """What the inputs and both biases add up to, and what a GRU adds to its state's product before its reset gate."""
        write, rows = self.write, self.gates * self.hidden
        weights = write.pick(need(self.node, 1), 0, index)
        numbers = shape_of(need(self.node, 1))[-1]
        turned = write("Transpose", self.padded(weights, self.gates, numbers), perm=[1, 0])
        made, bias, after = write("MatMul", self.x, turned), self.part(3, index), None
        if bias is None:
            return made, None
        first, second = write.cut(bias, 0, 0, rows), write.cut(bias, 0, rows, 2 * rows)
        if after_reset:
            last = rows - self.hidden
            after = self.padded(write.cut(second, 0, last, rows), 1)
            second = write("Concat", write.cut(second, 0, 0, last), np.zeros(self.hidden, np.float32), axis=0)
        return write("Add", made, self.padded(write("Add", first, second), self.gates)), after

    def state(self, slot: int, index: int) -> ir.Value | None:
        """Where a state begins: [batch, hidden]."""
        value = given(self.node, slot)
        if value is not None and self.batch_first:
            value = self.write("Transpose", value, perm=[1, 0, 2])
        return None if value is None else self.write.pick(value, 0, index)

    def direction(self, index: int, functions: list[str], *, reverse: bool) -> list[ir.Value]:
        """The results of every step [steps, batch, hidden], and the last states [batch, hidden]."""
        node, lstm = self.node, self.kind == "LSTM"
        after_reset = bool(attribute_int(node, "linear_before_reset", 0)) and self.kind == "GRU"
        x, after = self.products(index, after_reset=after_reset)
        peepholes = self.part(7, index) if lstm else None
        inputs = [
            x, self.panels(index), after, None if peepholes is None else self.padded(peepholes, 3), given(node, 4),
            self.state(5, index), self.state(6, index) if lstm else None,
        ]  # fmt: skip
        attributes: dict[str, Any] = {
            "kind": self.kind.lower(), "reverse": int(reverse), "after_reset": int(after_reset),
            "input_forget": attribute_int(node, "input_forget", 0), "clip": attribute_float(node, "clip", 0.0),
            **dict(zip("fgh", map(str.lower, functions), strict=False)),
        }  # fmt: skip
        made = self.write.added(ir.node("Recurrent", inputs, attributes, domain=PRIVATE, num_outputs=3 if lstm else 2))
        steps, batch = (None, None) if self.x.shape is None else self.x.shape[:2]
        for value, sizes in zip(made, ([steps, batch], [batch], [batch]), strict=False):
            value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([*sizes, self.hidden])
        return list(made)


def recurrent(node: ir.Node, write: Writer) -> list[ir.Value]:
    """All directions of a layer: their outputs of every step, and their last states."""
    kind, batch_first = node.op_type, bool(attribute_int(node, "layout", 0))
    x = need(node, 0)
    if rank_of(x) != 3 or x.shape is None:
        raise Refusal(f"{kind} of other than three axes")
    if batch_first:
        shape, x = x.shape, write("Transpose", x, perm=[1, 0, 2])
        x.shape = ir.Shape([shape[1], shape[0], shape[2]])
    layer = _Layer(node, write, x, shape_of(need(node, 2))[-1], batch_first)
    turned = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
    directions = turned[attribute_text(node, "direction", "forward")]
    functions = _functions(node, len(directions))
    made = [layer.direction(index, functions[index], reverse=reverse) for index, reverse in enumerate(directions)]
    results = [write("Unsqueeze", one[0], [1]) for one in made]  # [steps, directions, batch, hidden]
    joined = [write("Concat", *results, axis=1)]
    for number in range(1, len(made[0])):
        joined.append(write("Concat", *(write("Unsqueeze", one[number], [0]) for one in made), axis=0))
    if not batch_first:
        return joined
    return [write("Transpose", one, perm=[2, 0, 1, 3] if one is joined[0] else [1, 0, 2]) for one in joined]


def _functions(node: ir.Node, directions: int) -> list[list[str]]:
    """Of each direction, by name."""
    kind, each = node.op_type, len(_DEFAULT[node.op_type])
    names = _DEFAULT[kind] * directions
    if "activations" in node.attributes:
        names = [str(name) for name in node.attributes["activations"].as_strings()]
    if len(names) != each * directions or any(name not in _KNOWN for name in names):
        raise Refusal(f"{kind} with the functions {', '.join(names)}")
    return [names[at : at + each] for at in range(0, len(names), each)]


RULES = dict.fromkeys(_GATES, recurrent)
