"""LSTM: one MIL operation per direction, so that nothing depends on how MIL orders the halves of a bidirectional one.

Sequences of several lengths and peepholes, which MIL's operation has not, are written out step by step.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.ops.cells import check_steps, stepwise
from edgewise.targets.coreml.ops.sequences import check_sequences, initial, joined, steps_first, ways
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import FLOATS, Row


def _is_written_out(node: NodeView) -> bool:
    return node.given(4) or node.given(7)


def _check(node: NodeView) -> Refusal | None:
    return check_sequences(node) or (check_steps(node) if _is_written_out(node) else None)


def _gates(array: np.ndarray) -> np.ndarray:
    """From ONNX's order of the gates (input, output, forget, cell) to MIL's (input, forget, output, cell)."""
    first, output, forget, cell = np.split(array, 4)
    return np.concatenate([first, forget, output, cell])


def _lstm(b: Building) -> Any:
    if _is_written_out(b):
        return stepwise(b)
    x = steps_first(b)
    return joined(b, [_one_way(b, x, place, back) for place, back in enumerate(ways(b))])


def _one_way(b: Building, x: Any, place: int, back: bool) -> tuple[Any, Any, Any]:
    """Y [steps, batch, hidden], Y_h and Y_c [batch, hidden] of one direction."""
    bias = b.known(3)[place] if b.given(3) else None
    hidden = b.integer("hidden_size")
    summed = None if bias is None else _gates(bias[: 4 * hidden] + bias[4 * hidden :])
    y, h, c = b.mb.lstm(
        x=b.mb.reverse(x=x, axes=[0]) if back else x,
        initial_h=initial(b, 5, place),
        initial_c=initial(b, 6, place),
        weight_ih=b.array(_gates(b.known(1)[place])),
        weight_hh=b.array(_gates(b.known(2)[place])),
        bias=None if summed is None else b.array(summed),
        output_sequence=True,
    )
    return (b.mb.reverse(x=y, axes=[0]) if back else y), h, c


ROWS = (
    Row("LSTM", _lstm, _check, static=(1, 2, 3, 7), weights=(1, 2, 3), dtypes=FLOATS | {"int32"}, note="default activations; with sequence_lens or peepholes up to 256 steps"),
)  # fmt: skip
