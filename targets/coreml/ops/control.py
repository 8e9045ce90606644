"""If, Loop and Scan: what could be written out is gone before a node is judged, so what is left is refused with the reason."""

from __future__ import annotations

from typing import Any

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.control import OPERATORS, why_not
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import Row

_NOTES = {
    "If": "both branches are computed unless the condition is a constant: same fixed shapes",
    "Loop": "a constant number of iterations, written out",
    "Scan": "a fixed number of steps, written out",
}


def _check(node: NodeView) -> Refusal | None:
    nested = Refusal(
        "a body that is not written out", "straight-line code", "Export with fixed shapes", "attribute body"
    )
    return why_not(node.node) or nested


def _build(b: Building) -> Any:
    raise ValueError(f"{b.label}: {b.op} is written out before")


ROWS = tuple(Row(op, _build, _check, control=True, note=_NOTES[op]) for op in OPERATORS)
