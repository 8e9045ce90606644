"""Small operators that are written out by others."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import ANY, FLOATS, NUMBERS, Row


def _asinh(b: Building) -> Any:
    """On the size of x, for on the negative side the terms would cancel."""
    size = b.mb.abs(x=b.x())
    root = b.mb.sqrt(x=b.mb.add(x=b.mb.square(x=size), y=b.like(1)))
    return b.mb.mul(x=b.mb.sign(x=b.x()), y=b.mb.log(x=b.mb.add(x=size, y=root)))


def _acosh(b: Building) -> Any:
    root = b.mb.sqrt(x=b.mb.sub(x=b.mb.square(x=b.x()), y=b.like(1)))
    return b.mb.log(x=b.mb.add(x=b.x(), y=root))


def _is_inf(b: Building) -> Any:
    signs = [sign for sign, name in ((1, "detect_positive"), (-1, "detect_negative")) if b.integer(name, 1)]
    found = [b.mb.equal(x=b.x(), y=b.like(sign * np.inf)) for sign in signs]
    if not found:
        return b.mb.logical_and(x=b.mb.not_equal(x=b.x(), y=b.x()), y=b.mb.equal(x=b.x(), y=b.x()))
    return found[0] if len(found) == 1 else b.mb.logical_or(x=found[0], y=found[1])


def _hardmax(b: Building) -> Any:
    axis, shape = b.axis(-1), [1] * len(b.dims(0))
    shape[axis] = int(b.dims(0)[axis] or 1)
    place = b.mb.reduce_argmax(x=b.x(), axis=axis, keep_dims=True)
    hit = b.mb.equal(x=place, y=np.arange(shape[axis], dtype=np.int32).reshape(shape))
    return b.mb.select(cond=hit, a=b.like(1), b=b.like(0))


def _check_hardmax(node: NodeView) -> Refusal | None:
    if node.opset < 13 and node.axis(1) != len(node.dims(0)) - 1:
        return Refusal("several axes at once (opsets below 13)", "one axis", "Upgrade to opset 13", "attribute axis")
    if node.dims(0)[node.axis(-1)] is None:
        return Refusal("a size known at run time only", "a fixed size", "Export with fixed shapes", "input")
    return None


def _eye(b: Building) -> Any:
    rows, columns = (int(dim or 0) for dim in b.dims(0))
    return b.mb.const(val=b.array(np.eye(rows, columns, b.integer("k"), dtype=b.out_dtype())))


def _check_eye(node: NodeView) -> Refusal | None:
    if None in node.dims(0):
        return Refusal("sizes known at run time only", "fixed sizes", "Export with fixed shapes", "input")
    return None


def _lp_pool(b: Building) -> Any:
    """The pool of |x|ᵖ is a mean times its count."""
    power, axes = b.integer("p", 2), list(range(2, len(b.dims(0))))
    raised = b.mb.abs(x=b.x()) if power == 1 else b.mb.square(x=b.x())
    total = b.mb.reduce_sum(x=raised, axes=axes, keep_dims=True)
    return total if power == 1 else b.mb.sqrt(x=total)


def _check_lp(node: NodeView) -> Refusal | None:
    if node.integer("p", 2) not in (1, 2):
        return Refusal(f"p {node.integer('p')}", "1 or 2", "Write it out", "attribute p")
    return None


ROWS = (
    Row("Asinh", _asinh, dtypes=FLOATS, elementwise=True),
    Row("Acosh", _acosh, dtypes=FLOATS, elementwise=True),
    Row("IsInf", _is_inf, dtypes=FLOATS, elementwise=True),
    Row("Hardmax", _hardmax, _check_hardmax, dtypes=FLOATS),
    Row("EyeLike", _eye, _check_eye, dtypes=ANY | NUMBERS),
    Row("GlobalLpPool", _lp_pool, _check_lp, dtypes=FLOATS, note="p of 1 or 2"),
)
