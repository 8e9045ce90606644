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
    weight, gates = b.known(1)[place], b.known(1).shape[1]
    bias = b.known(3)[place] if b.given(3) else np.zeros(2 * gates, weight.dtype)
    inputs = b.mb.linear(x=x, weight=b.array(weight), bias=b.array(bias[:gates]))
    state: State = tuple(initial(b, index, place) for index in states_of(b))
    holes = b.known(7)[place] if b.node.op_type == "LSTM" and b.given(7) else None
    count, steps = int(steps_and_batch(b)[0] or 0), []
    for step in reversed(range(count)) if back else range(count):
        row = b.mb.slice_by_index(x=inputs, begin=[step, 0, 0], end=[step + 1, 0, 0], begin_mask=[False, True, True],
                                  end_mask=[False, True, True], squeeze_mask=[True, False, False])  # fmt: skip
        fresh = _CELLS[b.node.op_type](b, row, state, b.known(2)[place], bias[gates:], holes)
        state, y = _within(b, step, state, fresh)
        steps.append(y)
    return b.mb.stack(values=steps[::-1] if back else steps, axis=0), *state


def _within(b: Building, step: int, state: State, fresh: State) -> tuple[State, Any]:
    """The state after a step and its output; beyond a sequence's own length the state stays and the output is 0."""
    if not b.given(4):
        return fresh, fresh[0]
    runs = b.mb.expand_dims(x=b.mb.greater(x=b.x(4), y=np.int32(step)), axes=[1])
    kept = tuple(b.mb.select(cond=runs, a=new, b=old) for new, old in zip(fresh, state, strict=True))
    number = b.mb.cast(x=runs, dtype="fp16" if b.dtype(0) == "float16" else "fp32")
    return kept, b.mb.mul(x=fresh[0], y=number)


def _gru(b: Building, row: Any, state: State, weight: np.ndarray, bias: np.ndarray, _: np.ndarray | None) -> State:
    """Gates in ONNX's order: update, reset, hidden."""
    (h,), hidden = state, b.integer("hidden_size")
    update, reset, new = (_columns(b, row, gate, hidden) for gate in range(3))
    if b.integer("linear_before_reset"):
        recurrent = b.mb.linear(x=h, weight=b.array(weight), bias=b.array(bias))
        second = [_columns(b, recurrent, gate, hidden) for gate in range(3)]
        z, r = b.mb.sigmoid(x=b.mb.add(x=update, y=second[0])), b.mb.sigmoid(x=b.mb.add(x=reset, y=second[1]))
        inner = b.mb.mul(x=r, y=second[2])
    else:
        ahead = b.mb.linear(x=h, weight=b.array(weight[: 2 * hidden]), bias=b.array(bias[: 2 * hidden]))
        first = [_columns(b, ahead, gate, hidden) for gate in range(2)]
        z, r = b.mb.sigmoid(x=b.mb.add(x=update, y=first[0])), b.mb.sigmoid(x=b.mb.add(x=reset, y=first[1]))
        kept = b.mb.mul(x=r, y=h)
        inner = b.mb.linear(x=kept, weight=b.array(weight[2 * hidden :]), bias=b.array(bias[2 * hidden :]))
    fresh = b.mb.tanh(x=b.mb.add(x=new, y=inner))
    return (b.mb.add(x=fresh, y=b.mb.mul(x=z, y=b.mb.sub(x=h, y=fresh))),)


def _rnn(b: Building, row: Any, state: State, weight: np.ndarray, bias: np.ndarray, _: np.ndarray | None) -> State:
    return (b.mb.tanh(x=b.mb.add(x=row, y=b.mb.linear(x=state[0], weight=b.array(weight), bias=b.array(bias)))),)


def _lstm(b: Building, row: Any, state: State, weight: np.ndarray, bias: np.ndarray, holes: np.ndarray | None) -> State:
    """Gates in ONNX's order: input, output, forget, cell; ``holes``: what each of the first three sees of the cell."""
    h, c = state
    hidden = b.integer("hidden_size")
    whole = b.mb.add(x=row, y=b.mb.linear(x=h, weight=b.array(weight), bias=b.array(bias)))
    taken, out, forget, new = (_columns(b, whole, gate, hidden) for gate in range(4))
    peeps = None if holes is None else [b.array(part) for part in np.split(holes, 3)]
    seen = [None, None, None] if peeps is None else peeps
    taken, forget = _gate(b, taken, c, seen[0]), _gate(b, forget, c, seen[2])
    c = b.mb.add(x=b.mb.mul(x=forget, y=c), y=b.mb.mul(x=taken, y=b.mb.tanh(x=new)))
    return b.mb.mul(x=_gate(b, out, c, seen[1]), y=b.mb.tanh(x=c)), c


def _gate(b: Building, x: Any, cell: Any, hole: Any) -> Any:
    return b.mb.sigmoid(x=x if hole is None else b.mb.add(x=x, y=b.mb.mul(x=cell, y=hole)))


def _columns(b: Building, x: Any, gate: int, hidden: int) -> Any:
    return b.mb.slice_by_index(x=x, begin=[0, gate * hidden], end=[0, (gate + 1) * hidden], begin_mask=[True, False],
                               end_mask=[True, False])  # fmt: skip


_CELLS = {"GRU": _gru, "RNN": _rnn, "LSTM": _lstm}

ROWS = tuple(
    Row(
        name, stepwise, _check, static=(1, 2, 3), dtypes=FLOATS | {"int32"}, note="default activations, sequences of a fixed length"
    )
    for name in ("GRU", "RNN")
)  # fmt: skip
