"""Reductions, ArgMax, CumSum and TopK."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.ops.elementwise import Build
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import ANY, FLOATS, NUMBERS, Row


def _axes(b: Building) -> list[int]:
    axes = b.axes(1)
    if axes or (axes == [] and b.integer("noop_with_empty_axes")):
        return axes
    return [] if axes is None and b.integer("noop_with_empty_axes") else list(range(len(b.dims(0))))


def _reduce(operation: str) -> Build:
    def build(b: Building) -> Any:
        axes = _axes(b)
        if not axes:
            return b.mb.identity(x=b.x())
        y = getattr(b.mb, operation)(x=b.number(), axes=axes, keep_dims=bool(b.integer("keepdims", 1)))
        return b.same(y)

    return build


def _arg(operation: str) -> Build:
    def build(b: Building) -> Any:
        axis, keep = b.axis(0), bool(b.integer("keepdims", 1))
        if not b.integer("select_last_index"):
            return getattr(b.mb, operation)(x=b.x(), axis=axis, keep_dims=keep)
        first = getattr(b.mb, operation)(x=b.mb.reverse(x=b.x(), axes=[axis]), axis=axis, keep_dims=keep)
        return b.mb.sub(x=np.int32(int(b.dims(0)[axis] or 1) - 1), y=first)

    return build


def _check_arg(node: NodeView) -> Refusal | None:
    if node.integer("select_last_index") and node.dims(0)[node.axis(0)] is None:
        return Refusal(
            "select_last_index 1 on a size known at run time only", "a fixed size, or the first index of equal values",
            "Export with fixed shapes", "attribute select_last_index",
        )  # fmt: skip
    return None


def _cumsum(b: Building) -> Any:
    axis = int(b.known(1).reshape(-1)[0]) % len(b.dims(0))
    return b.mb.cumsum(x=b.x(), axis=axis, exclusive=bool(b.integer("exclusive")), reverse=bool(b.integer("reverse")))


def _topk(b: Building) -> Any:
    k = b.param(1, "k")
    options = {"sort": bool(b.integer("sorted", 1))} if b.ios >= 16 else {}
    return b.mb.topk(
        x=b.x(), k=1 if k is None else int(k.reshape(-1)[0]), axis=b.axis(-1), ascending=not b.integer("largest", 1), **options
    )  # fmt: skip


ROWS = (
    *(
        Row(f"Reduce{name}", _reduce(f"reduce_{operation}"), static=(1,), dtypes=dtypes, along=0)
        for name, operation, dtypes in (
            ("Mean", "mean", FLOATS),
            ("Sum", "sum", NUMBERS),
            ("Max", "max", ANY),
            ("Min", "min", ANY),
            ("Prod", "prod", NUMBERS),
            ("L1", "l1_norm", FLOATS),
            ("L2", "l2_norm", FLOATS),
            ("LogSum", "log_sum", FLOATS),
            ("LogSumExp", "log_sum_exp", FLOATS),
            ("SumSquare", "sum_square", NUMBERS),
        )
    ),
    Row("ArgMax", _arg("reduce_argmax"), _check_arg, dtypes=NUMBERS),
    Row("ArgMin", _arg("reduce_argmin"), _check_arg, dtypes=NUMBERS),
    Row("CumSum", _cumsum, static=(1,), dtypes=NUMBERS),
    Row("TopK", _topk, static=(1,), dtypes=NUMBERS),
)
