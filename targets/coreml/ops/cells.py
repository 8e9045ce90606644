"""GRU and RNN, and LSTM where MIL's own cannot, step by step: MIL's GRU and RNN have one form of the gates and float32 alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.ops.sequences import (
    check_sequences,
    initial,
    joined,
    states_of,
    steps_and_batch,
    steps_first,
    ways,
)
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import FLOATS, Row

_MOST_STEPS = 256

State = tuple[Any, ...]


def check_steps(node: NodeView) -> Refusal | None:
    """A length that is known, and not so long that the program grows without bounds."""
    steps = steps_and_batch(node)[0]
    if steps is None or steps > _MOST_STEPS:
        return Refusal(
            f"{steps or 'an unknown number of'} steps", f"up to {_MOST_STEPS}, for they are written out",
            "Export with a fixed length", "input X",
        )  # fmt: skip
    return None


def _check(node: NodeView) -> Refusal | None:
    return check_sequences(node) or check_steps(node)


def stepwise(b: Building) -> list[Any]:
    """ONNX's outputs: Y, Y_h and, of LSTM, Y_c."""
    x = steps_first(b)
    return joined(b, [_one_way(b, x, place, back) for place, back in enumerate(ways(b))])


def _one_way(b: Building, x: Any, place: int, back: bool) -> tuple[Any, ...]:
    """Everything is [1, batch, …] in a step, split and not sliced: each slice would bring eight constants of its own."""
    weight, gates = b.known(1)[place], b.known(1).shape[1]
    bias = b.known(3)[place] if b.given(3) else np.zeros(2 * gates, weight.dtype)
    count, hidden = int(steps_and_batch(b)[0] or 0), b.integer("hidden_size")
    inputs = b.mb.linear(x=x, weight=b.array(weight), bias=b.array(bias[:gates]))
    cell = _CELLS[b.node.op_type](b, b.known(2)[place], bias[gates:], _holes(b, place))
    parts = [
        _split(b, part, [1] * count, 0) for part in _split(b, inputs, [width * hidden for width in cell.widths], 2)
    ]
    state: State = tuple(b.mb.expand_dims(x=initial(b, index, place), axes=[0]) for index in states_of(b))
    lengths = b.mb.expand_dims(x=b.x(4), axes=[0, 2]) if b.given(4) else None
    steps: list[Any] = [None] * count
    for step in reversed(range(count)) if back else range(count):
        state, steps[step] = _within(b, step, lengths, state, cell([part[step] for part in parts], state))
    whole = steps[0] if count == 1 else b.mb.concat(values=steps, axis=0)
    return whole, *(b.mb.squeeze(x=part, axes=[0]) for part in state)


def _split(b: Building, x: Any, sizes: list[int], axis: int) -> list[Any]:
    return [x] if len(sizes) == 1 else list(b.mb.split(x=x, split_sizes=sizes, axis=axis))


def _within(b: Building, step: int, lengths: Any, state: State, fresh: State) -> tuple[State, Any]:
    """The state after a step and its output; beyond a sequence's own length the state stays and the output is 0."""
    if lengths is None:
        return fresh, fresh[0]
    runs = b.mb.greater(x=lengths, y=np.int32(step))
    kept = tuple(b.mb.select(cond=runs, a=new, b=old) for new, old in zip(fresh, state, strict=True))
    number = b.mb.cast(x=runs, dtype="fp16" if b.dtype(0) == "float16" else "fp32")
    return kept, b.mb.mul(x=fresh[0], y=number)


def _holes(b: Building, place: int) -> np.ndarray | None:
    return b.known(7)[place] if b.node.op_type == "LSTM" and b.given(7) else None


class _Cell:
    """What a step computes; its constants are made once. ``widths``: how the rows of all gates are split, in hidden sizes."""

    widths: tuple[int, ...] = (1,)

    def __init__(self, b: Building, weight: np.ndarray, bias: np.ndarray, holes: np.ndarray | None) -> None:
        self.b, self.mb, self.hidden = b, b.mb, b.integer("hidden_size")
        self.weight, self.bias = self.constant(weight), self.constant(bias)
        self.holes = [None] * 3 if holes is None else [self.constant(part) for part in np.split(holes, 3)]

    def constant(self, array: np.ndarray) -> Any:
        return self.mb.const(val=self.b.array(array))

    def recurrent(self, h: Any) -> Any:
        return self.mb.linear(x=h, weight=self.weight, bias=self.bias)

    def split(self, x: Any, *widths: int) -> list[Any]:
        return list(self.mb.split(x=x, split_sizes=[width * self.hidden for width in widths], axis=2))

    def __call__(self, row: list[Any], state: State) -> State:
        raise NotImplementedError


class _Gru(_Cell):
    """Gates in ONNX's order: update, reset, hidden."""

    widths = (2, 1)

    def __init__(self, b: Building, weight: np.ndarray, bias: np.ndarray, holes: np.ndarray | None) -> None:
        self.after = bool(b.integer("linear_before_reset"))
        ahead = slice(None) if self.after else slice(2 * b.integer("hidden_size"))
        super().__init__(b, weight[ahead], bias[ahead], holes)
        if not self.after:
            self.last = self.constant(weight[ahead.stop :]), self.constant(bias[ahead.stop :])

    def __call__(self, row: list[Any], state: State) -> State:
        (h,), mb = state, self.mb
        gates, inner = self.split(self.recurrent(h), 2, 1) if self.after else (self.recurrent(h), None)
        update, reset = self.split(mb.sigmoid(x=mb.add(x=row[0], y=gates)), 1, 1)
        if self.after:
            new = mb.mul(x=reset, y=inner)
        else:
            new = mb.linear(x=mb.mul(x=reset, y=h), weight=self.last[0], bias=self.last[1])
        fresh = mb.tanh(x=mb.add(x=row[1], y=new))
        return (mb.add(x=fresh, y=mb.mul(x=update, y=mb.sub(x=h, y=fresh))),)


class _Rnn(_Cell):
    def __call__(self, row: list[Any], state: State) -> State:
        return (self.mb.tanh(x=self.mb.add(x=row[0], y=self.recurrent(state[0]))),)


class _Lstm(_Cell):
    """Gates in ONNX's order: input, output, forget, cell; ``holes``: what each of the first three sees of the cell."""

    widths = (4,)

    def __call__(self, row: list[Any], state: State) -> State:
        (h, c), mb = state, self.mb
        taken, out, forget, new = self.split(mb.add(x=row[0], y=self.recurrent(h)), 1, 1, 1, 1)
        taken, forget = self._gate(taken, c, self.holes[0]), self._gate(forget, c, self.holes[2])
        c = mb.add(x=mb.mul(x=forget, y=c), y=mb.mul(x=taken, y=mb.tanh(x=new)))
        return mb.mul(x=self._gate(out, c, self.holes[1]), y=mb.tanh(x=c)), c

    def _gate(self, x: Any, cell: Any, hole: Any) -> Any:
        return self.mb.sigmoid(x=x if hole is None else self.mb.add(x=x, y=self.mb.mul(x=cell, y=hole)))


_CELLS = {"GRU": _Gru, "RNN": _Rnn, "LSTM": _Lstm}

ROWS = tuple(
    Row(
        name, stepwise, _check, static=(1, 2, 3), weights=(1, 2, 3), dtypes=FLOATS | {"int32"}, note="default activations, sequences of a fixed length"
    )
    for name in ("GRU", "RNN")
)  # fmt: skip
