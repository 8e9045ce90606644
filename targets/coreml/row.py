"""The row of an operator: how it is judged and how it is built. The table of them is in ``table.py``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.refusal import Refusal

if TYPE_CHECKING:
    from edgewise.targets.coreml.building import Building

FLOATS = frozenset({"float16", "float32"})
NUMBERS = FLOATS | {"int32", "int64"}
ANY = NUMBERS | {"bool"}
BYTES = frozenset({"int8", "uint8"})


def _fine(_: NodeView) -> Refusal | None:
    return None


@dataclass(frozen=True)
class Row:
    """One ONNX operator.

    Attributes:
        op: ONNX's name.
        build: makes MIL operations; gives the output variable, or a list of them.
        check: says why a node is not taken; called after the checks that hold for every operator.
        static: inputs that must be constants (axes, shapes, pads): they turn into parameters, not tensors.
        weights: inputs that multiply what passes: infinity in one is a broken checkpoint (in a mask it means something).
        clamped: inputs that are parameters when they are constants: int64 beyond int32 (ends of slices) or empty.
        dtypes: what the tensors may be.
        ios: oldest deployment target that has the operation.
        high_rank: tensors of rank 6 and above pass through (as a view of one with rank ≤ 5).
        along: works along one axis, by default this one: ranks above 5 are seen as three axes.
        stack: multiplies stacks of matrices: ranks above 5 are seen as one stack.
        elementwise: looks at each element alone, whatever the axes: ranks above 5 are collapsed for it.
        control: holds graphs; written out before nodes are judged, so one that is left is refused by ``check``.
        note: limits, for the table in the docs.
        domain: "" is ONNX's own.
    """

    op: str
    build: Callable[[Building], Any]
    check: Callable[[NodeView], Refusal | None] = _fine
    static: tuple[int, ...] = ()
    weights: tuple[int, ...] = ()
    clamped: tuple[int, ...] = ()
    dtypes: frozenset[str] = ANY
    ios: int = 15
    high_rank: bool = False
    elementwise: bool = False
    along: int | None = None
    stack: bool = False
    control: bool = False
    note: str = ""
    domain: str = ""
