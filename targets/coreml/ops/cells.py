"""GRU and RNN, step by step: MIL's own have one form of the gates and float32 alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import FLOATS, Row

_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
_DEFAULTS = {"GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_MOST_STEPS = 256

Step = Callable[[Any], Any]


def _check(node: NodeView) -> Refusal | None:
    names = [item.decode() if isinstance(item, bytes) else item for item in node.attribute("activations", ())]
    usual = _DEFAULTS[node.node.op_type]
    if names and names != usual * (len(names) // len(usual)):
        return Refusal(", ".join(names), ", ".join(usual), "Use the default ones", "attribute activations")
    for name in ("layout", "clip"):
        if node.attribute(name, 0):
            return Refusal(f"{name} {node.attribute(name)}", f"{name} 0", f"Export without {name}", f"attribute {name}")
    if node.given(4):
        return Refusal("sequence_lens", "whole sequences", "Export without lengths", "input sequence_lens")
    steps, batch = node.dims(0)[0], node.dims(0)[1]
    if steps is None or steps > _MOST_STEPS:
        return Refusal(
            f"{steps or 'an unknown number of'} steps", f"up to {_MOST_STEPS}, for they are written out",
            "Export with a fixed length", "input X",
        )  # fmt: skip
    if batch is None and not node.given(5):
        return Refusal("a batch known at run time only, and no initial state", "a fixed batch", "Export with one")
    return None


def _recurrent(b: Building) -> Any:
    """Y [steps, directions, batch, hidden] and Y_h [directions, batch, hidden]."""
    backwards = _DIRECTIONS[b.text("direction", "forward")]
    ways = [_one_way(b, place, back) for place, back in enumerate(backwards)]
    outputs = []
    for axis, parts in ((1, [way[0] for way in ways]), (0, [way[1] for way in ways])):
        spread = [b.mb.expand_dims(x=part, axes=[axis]) for part in parts]
        outputs.append(spread[0] if len(spread) == 1 else b.mb.concat(values=spread, axis=axis))
    return outputs[: len(b.node.outputs)]


def _one_way(b: Building, place: int, back: bool) -> tuple[Any, Any]:
    weight, gates = b.known(1)[place], b.known(1).shape[1]
    bias = b.known(3)[place] if b.given(3) else np.zeros(2 * gates, weight.dtype)
    inputs = b.mb.linear(x=b.x(), weight=b.array(weight), bias=b.array(bias[:gates]))
    h, steps = _initial(b, place), []
    count = int(b.dims(0)[0] or 0)
    for step in reversed(range(count)) if back else range(count):
        row = b.mb.slice_by_index(x=inputs, begin=[step, 0, 0], end=[step + 1, 0, 0], begin_mask=[False, True, True],
                                  end_mask=[False, True, True], squeeze_mask=[True, False, False])  # fmt: skip
        h = _CELLS[b.node.op_type](b, row, h, b.known(2)[place], bias[gates:])
        steps.append(h)
    return b.mb.stack(values=steps[::-1] if back else steps, axis=0), h


def _initial(b: Building, place: int) -> Any:
    if not b.given(5):
        return b.array(np.zeros((int(b.dims(0)[1] or 1), b.integer("hidden_size")), b.dtype(0)))
    part = b.mb.slice_by_size(x=b.x(5), begin=[place, 0, 0], size=[1, -1, -1])
    return b.mb.squeeze(x=part, axes=[0])


def _gru(b: Building, row: Any, h: Any, weight: np.ndarray, bias: np.ndarray) -> Any:
    """Gates in ONNX's order: update, reset, hidden."""
    hidden = b.integer("hidden_size")
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
    return b.mb.add(x=fresh, y=b.mb.mul(x=z, y=b.mb.sub(x=h, y=fresh)))


def _rnn(b: Building, row: Any, h: Any, weight: np.ndarray, bias: np.ndarray) -> Any:
    return b.mb.tanh(x=b.mb.add(x=row, y=b.mb.linear(x=h, weight=b.array(weight), bias=b.array(bias))))


def _columns(b: Building, x: Any, gate: int, hidden: int) -> Any:
    return b.mb.slice_by_index(x=x, begin=[0, gate * hidden], end=[0, (gate + 1) * hidden], begin_mask=[True, False],
                               end_mask=[True, False])  # fmt: skip


_CELLS = {"GRU": _gru, "RNN": _rnn}

ROWS = tuple(
    Row(
        name,
        _recurrent,
        _check,
        static=(1, 2, 3),
        dtypes=FLOATS,
        note="default activations, whole sequences of fixed length",
    )
    for name in _CELLS
)
