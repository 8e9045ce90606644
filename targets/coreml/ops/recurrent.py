"""LSTM: one MIL operation per direction, so that nothing depends on how MIL orders the halves of a bidirectional one."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import FLOATS, Row

_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
_ACTIVATIONS = ("Sigmoid", "Tanh", "Tanh")


def _check(node: NodeView) -> Refusal | None:
    activations = [item.decode() if isinstance(item, bytes) else item for item in node.attribute("activations", ())]
    if activations and activations != list(_ACTIVATIONS) * (len(activations) // len(_ACTIVATIONS)):
        return Refusal(", ".join(activations), ", ".join(_ACTIVATIONS), "Use the default ones", "attribute activations")
    for name in ("layout", "input_forget", "clip"):
        if node.attribute(name, 0):
            return Refusal(f"{name} {node.attribute(name)}", f"{name} 0", f"Export without {name}", f"attribute {name}")
    for index, name in ((4, "sequence_lens"), (7, "P")):
        if node.given(index):
            return Refusal(
                f"the input {name}", "whole sequences without peepholes", f"Export without {name}", f"input {name}"
            )
    if not (node.given(5) and node.given(6)) and node.dims(0)[1] is None:
        return Refusal(
            "a batch known at run time only, and no initial states", "a fixed batch", "Export with a fixed batch"
        )
    return None


def _gates(array: np.ndarray) -> np.ndarray:
    """From ONNX's order of the gates (input, output, forget, cell) to MIL's (input, forget, output, cell)."""
    first, output, forget, cell = np.split(array, 4)
    return np.concatenate([first, forget, output, cell])


def _lstm(b: Building) -> Any:
    backwards = _DIRECTIONS[b.text("direction", "forward")]
    ways = [_one_way(b, place, back) for place, back in enumerate(backwards)]
    joined = []
    for axis, parts in ((1, [way[0] for way in ways]), (0, [way[1] for way in ways]), (0, [way[2] for way in ways])):
        spread = [b.mb.expand_dims(x=part, axes=[axis]) for part in parts]
        joined.append(spread[0] if len(spread) == 1 else b.mb.concat(values=spread, axis=axis))
    return joined[: len(b.node.outputs)]


def _one_way(b: Building, place: int, back: bool) -> tuple[Any, Any, Any]:
    """Y [steps, batch, hidden], Y_h and Y_c [batch, hidden] of one direction."""
    x = b.mb.reverse(x=b.x(), axes=[0]) if back else b.x()
    bias = b.known(3)[place] if b.given(3) else None
    hidden = b.integer("hidden_size")
    summed = None if bias is None else _gates(bias[: 4 * hidden] + bias[4 * hidden :])
    y, h, c = b.mb.lstm(
        x=x,
        initial_h=_state(b, 5, place, hidden),
        initial_c=_state(b, 6, place, hidden),
        weight_ih=b.array(_gates(b.known(1)[place])),
        weight_hh=b.array(_gates(b.known(2)[place])),
        bias=None if summed is None else b.array(summed),
        output_sequence=True,
    )
    return (b.mb.reverse(x=y, axes=[0]) if back else y), h, c


def _state(b: Building, index: int, place: int, hidden: int) -> Any:
    if not b.given(index):
        return b.array(np.zeros((int(b.dims(0)[1] or 1), hidden), b.dtype(0)))
    state = b.x(index)
    if int(state.shape[0]) == 1:
        return b.mb.squeeze(x=state, axes=[0])
    part = b.mb.slice_by_size(x=state, begin=[place, 0, 0], size=[1, -1, -1])
    return b.mb.squeeze(x=part, axes=[0])


ROWS = (
    Row("LSTM", _lstm, _check, static=(1, 2, 3), dtypes=FLOATS, note="default activations, whole sequences, layout 0"),
)
