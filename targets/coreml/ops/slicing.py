"""Parts of tensors and their joining: Slice, Split, Concat, Pad, Expand, Tile, Trilu."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import ANY, NUMBERS, Row

_INT32_MAX = 2**31 - 1


def _slice(b: Building) -> Any:
    """Constant bounds become parameters with masks for open ends; computed ones are put together at run time."""
    rank = len(b.dims(0))
    starts, ends, steps = b.param(1, "starts"), b.param(2, "ends"), b.param(4)
    axes = b.axes(3)
    if axes is None:
        axes = list(range(starts.size if starts is not None else int((b.dims(1) or (rank,))[0] or rank)))
    strides = [1] * rank
    for axis, step in zip(axes, steps.reshape(-1) if steps is not None else [], strict=False):
        strides[axis] = int(step)
    if starts is None or ends is None:
        return _slice_at_run_time(b, axes, strides)
    begin, end = [0] * rank, [0] * rank
    open_begin, open_end = [True] * rank, [True] * rank
    for axis, start, stop in zip(axes, starts.reshape(-1), ends.reshape(-1), strict=True):
        begin[axis], open_begin[axis] = _bound(int(start), b.dims(0)[axis], strides[axis], first=True)
        end[axis], open_end[axis] = _bound(int(stop), b.dims(0)[axis], strides[axis], first=False)
    return b.mb.slice_by_index(
        x=b.x(), begin=begin, end=end, stride=strides, begin_mask=open_begin, end_mask=open_end
    )  # fmt: skip


def _bound(value: int, size: int | None, step: int, first: bool) -> tuple[int, bool]:
    """A start or end, clamped as ONNX does; True when it lies at the very border, which MIL marks by a mask."""
    if size is None:
        if step > 0:
            return (value, value == 0) if first else (min(value, _INT32_MAX), value >= _INT32_MAX)
        return (max(min(value, _INT32_MAX), -_INT32_MAX), value >= _INT32_MAX if first else value <= -_INT32_MAX)
    value = value + size if value < 0 else value
    if step > 0:
        value = min(max(value, 0), size)
        return value, (value == 0 if first else value == size)
    value = min(max(value, -1), size - 1)
    return value, (value == size - 1 if first else value == -1)


def _slice_at_run_time(b: Building, axes: Sequence[int], strides: list[int]) -> Any:
    rank = len(strides)
    bounds = []
    for index, fill in ((1, 0), (2, 0)):
        known = b.const(index)
        parts: list[Any] = [np.array([fill], np.int32)] * rank
        for place, axis in enumerate(axes):
            if known is None:
                parts[axis] = b.mb.slice_by_size(x=b.x(index), begin=[place], size=[1])
            else:
                parts[axis] = np.clip(known.reshape(-1)[[place]], -_INT32_MAX, _INT32_MAX).astype(np.int32)
        bounds.append(b.mb.concat(values=parts, axis=0))
    mask = [axis not in axes for axis in range(rank)]
    end = b.mb.minimum(x=bounds[1], y=b.mb.shape(x=b.x()))
    return b.mb.slice_by_index(
        x=b.x(), begin=bounds[0], end=end, stride=strides, begin_mask=mask, end_mask=mask
    )  # fmt: skip


def _check_slice(node: NodeView) -> Refusal | None:
    steps = node.param(4)
    if (node.param(1, "starts") is None or node.param(2, "ends") is None) and steps is not None and (steps < 0).any():
        return Refusal(
            "bounds computed at run time with negative steps", "constant bounds", "Make them constant", "input steps"
        )
    return _not_empty(node)


def _not_empty(node: NodeView) -> Refusal | None:
    if 0 in (node.out_shape() or ()):
        return Refusal("an empty output", "tensors with elements", "Drop the node and what reads it")
    return None


def _split(b: Building) -> Any:
    axis, count = b.axis(0), len(b.node.outputs)
    sizes = b.param(1, "split")
    x = b.x()
    if count == 1:
        return [b.mb.identity(x=x)]
    length = b.dims(0)[axis]
    if sizes is None:
        if length is None or length % count == 0:
            return b.mb.split(x=x, num_splits=count, axis=axis)
        part = -(-length // count)
        sizes = np.array([part] * (count - 1) + [length - part * (count - 1)])
    return b.mb.split(x=x, split_sizes=[int(size) for size in sizes.reshape(-1)], axis=axis)


def _concat(b: Building) -> Any:
    values = [b.x(index) for index in range(len(b.node.inputs))]
    return b.mb.concat(values=values, axis=b.axis(0)) if len(values) > 1 else b.mb.identity(x=values[0])


def _expand(b: Building) -> Any:
    """Copies along dims of 1; with a shape known at run time only, a product with ones of that shape."""
    target, shape = b.const(1), b.dims(0)
    if target is not None:
        wanted = [int(dim) for dim in target.reshape(-1)]
        rank = max(len(wanted), len(shape))
        have = (1,) * (rank - len(shape)) + shape
        want = [1] * (rank - len(wanted)) + wanted
        if all(old is not None or new == 1 for old, new in zip(have, want, strict=True)):
            x = b.mb.expand_dims(x=b.x(), axes=list(range(rank - len(shape)))) if rank > len(shape) else b.x()
            reps = [new if old == 1 else 1 for old, new in zip(have, want, strict=True)]
            return b.mb.tile(x=x, reps=reps) if any(rep > 1 for rep in reps) else b.mb.identity(x=x)
    ones = b.mb.fill(shape=b.x(1), value=b.like(1))
    return b.same(b.mb.mul(x=b.number(), y=ones))


def _tile(b: Building) -> Any:
    repeats = b.const(1)
    if repeats is not None and (repeats == 1).all():
        return b.mb.identity(x=b.x())
    return b.mb.tile(x=b.x(), reps=b.x(1) if repeats is None else [int(rep) for rep in repeats.reshape(-1)])


def _trilu(b: Building) -> Any:
    """Keep where the column minus the row is at least (at most, for the lower part) ``k``."""
    offset = int(b.known(1).reshape(-1)[0]) if b.given(1) else 0
    rows, columns = b.dims(0)[-2:]
    compare = b.mb.greater_equal if b.integer("upper", 1) else b.mb.less_equal
    if rows is not None and columns is not None:
        difference = np.arange(columns)[None, :] - np.arange(rows)[:, None]
        keep: Any = difference >= offset if b.integer("upper", 1) else difference <= offset
    else:
        difference = b.mb.sub(
            x=b.mb.expand_dims(x=_count(b, -1), axes=[0]), y=b.mb.expand_dims(x=_count(b, -2), axes=[1])
        )
        keep = compare(x=difference, y=np.int32(offset))
    if b.dtype(0) == "bool":
        return b.mb.logical_and(x=b.x(), y=keep)
    return b.mb.select(cond=keep, a=b.x(), b=b.like(0))


def _count(b: Building, axis: int) -> Any:
    """0, 1, 2, … along an axis whose size is known at run time."""
    size = b.mb.squeeze(x=b.dim(b.x(), axis % len(b.dims(0))))
    return b.mb.range_1d(start=np.int32(0), end=size, step=np.int32(1))


ROWS = (
    Row("Slice", _slice, _check_slice, static=(3, 4), clamped=(1, 2), dtypes=ANY),
    Row("Split", _split, _not_empty, static=(1,), dtypes=ANY, along=0),
    Row("Concat", _concat, dtypes=ANY, along=0),
    Row("Expand", _expand, dtypes=ANY),
    Row("Tile", _tile, dtypes=ANY),
    Row("Trilu", _trilu, static=(1,), dtypes=NUMBERS | {"bool"}),
)
