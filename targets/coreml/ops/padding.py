"""Pad: MIL's own where it has the mode, else constant blocks or an index along the axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import ANY, Row

_MIL_MODES = {"reflect": "reflect", "edge": "replicate"}


def _pads(node: NodeView) -> list[tuple[int, int]]:
    """Per axis: elements to add before and after; negative ones crop."""
    rank = len(node.dims(0))
    pads = node.param(1, "pads")
    flat = [0] * (2 * rank) if pads is None else [int(pad) for pad in pads.reshape(-1)]
    axes = node.axes(3) if node.given(3) else list(range(rank))
    full = [(0, 0)] * rank
    for place, axis in enumerate(axes or []):
        full[axis] = (flat[place], flat[place + len(flat) // 2])
    return full


def _pad(b: Building) -> Any:
    pads = _pads(b)
    x = _cropped(b, b.number(), pads)
    pads = [(max(0, before), max(0, after)) for before, after in pads]
    if not any(max(pair) for pair in pads):
        return b.same(b.mb.identity(x=x))
    mode = b.text("mode", "constant")
    if mode == "constant" and _is_computed(b):
        return b.same(_around(b, x, pads))
    if mode == "constant":
        value = _value(b)
        if b.is_float():
            flat = [pad for pair in pads for pad in pair]
            return b.mb.pad(x=x, pad=flat, mode="constant", constant_val=b.like(value))
        return b.same(_blocks(b, x, pads, int(value)))
    if mode in _MIL_MODES and b.is_float() and not any(max(pair) for pair in pads[:-2]) and _fits(b, pads, mode):
        return b.mb.pad(x=x, pad=[pad for pair in pads[-2:] for pad in pair], mode=_MIL_MODES[mode])
    return b.same(_indexed(b, x, pads, mode))


def _is_computed(node: NodeView) -> bool:
    return node.given(2) and node.param(2, "value") is None


def _around(b: Building, x: Any, pads: list[tuple[int, int]]) -> Any:
    """A number that is known at run time only stands where a constant mask has room for it."""
    outside = np.pad(np.zeros([int(dim) for dim in x.shape], bool), pads, constant_values=True)
    wide = _indexed(b, x, pads, "edge")
    return b.mb.select(cond=b.array(outside), a=b.mb.reshape(x=b.number(2), shape=[1] * outside.ndim), b=wide)


def _value(b: Building) -> float:
    value = b.param(2, "value")
    return 0 if value is None else float(value.reshape(-1)[0])


def _fits(b: Building, pads: list[tuple[int, int]], mode: str) -> bool:
    """MIL reflects at most size − 1 elements, and replicates at most size."""
    room = [None if dim is None else dim - (mode == "reflect") for dim in b.dims(0)]
    return len(pads) >= 2 and all(
        size is not None and max(pair) <= size for pair, size in zip(pads[-2:], room[-2:], strict=True)
    )


def _cropped(b: Building, x: Any, pads: list[tuple[int, int]]) -> Any:
    if not any(min(pair) < 0 for pair in pads):
        return x
    begin = [max(0, -before) for before, _ in pads]
    end = [min(0, after) for _, after in pads]
    return b.mb.slice_by_index(x=x, begin=begin, end=end, end_mask=[stop == 0 for stop in end])


def _blocks(b: Building, x: Any, pads: list[tuple[int, int]], value: int) -> Any:
    """Integers: MIL's ``pad`` has floats only, and would lose digits in float16."""
    shape = [int(dim) for dim in x.shape]
    for axis, pair in enumerate(pads):
        sizes = [(*shape[:axis], size, *shape[axis + 1 :]) for size in pair]
        sides = [np.full(size, value, np.int32) if size[axis] else None for size in sizes]
        parts = [part for part in (sides[0], x, sides[1]) if part is not None]
        x = b.mb.concat(values=parts, axis=axis) if len(parts) > 1 else x
        shape[axis] += sum(pair)
    return x


def _indexed(b: Building, x: Any, pads: list[tuple[int, int]], mode: str) -> Any:
    for axis, pair in enumerate(pads):
        if any(pair):
            order = np.pad(np.arange(int(x.shape[axis]), dtype=np.int32), pair, mode=mode)  # type: ignore[call-overload]
            x = b.mb.gather(x=x, indices=order, axis=axis)
    return x


def _check(node: NodeView) -> Refusal | None:
    mode = node.text("mode", "constant")
    if mode not in ("constant", "reflect", "edge", "wrap"):
        return Refusal(f"mode {mode!r}", "constant, reflect, edge or wrap", "Use one of them", "attribute mode")
    if _is_computed(node) and None in node.dims(0):
        return Refusal("a value and sizes known at run time only", "one of them fixed", "Make it constant",
                       "input constant_value")  # fmt: skip
    padded = [dim for dim, pair in zip(node.dims(0), _pads(node), strict=True) if any(pair)]
    floats = (node.dtype(0) or "").startswith("float")
    if None in padded and not (mode == "constant" and floats):
        return Refusal(
            f"mode {mode} on sizes known at run time only", "fixed sizes", "Export with fixed shapes", "attribute mode"
        )
    if not floats and mode == "constant" and None in node.dims(0):
        return Refusal(
            "integers of sizes known at run time only", "fixed sizes", "Export with fixed shapes", "input data"
        )
    return None


ROWS = (Row("Pad", _pad, _check, static=(1, 3), dtypes=ANY, note="constant, reflect, edge and wrap"),)
