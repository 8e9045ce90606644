"""Padding by as much as follows from the inputs' shapes: parts that are made and joined. What is known now is one operator (``spatial.pad``)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgewise.targets.cpu.native.builder import tensor_of
from edgewise.targets.cpu.native.context import Context
from edgewise.targets.cpu.native.form import Form
from edgewise.targets.cpu.native.ops.movement import sliced
from edgewise.targets.cpu.native.plan import Dim, Tensor, dim, product
from edgewise.targets.cpu.native.value import Refusal, Value, numpy_name


def grown(ctx: Context, value: Value, axis: int, before: Dim, behind: Dim, fill: float | None) -> Value:
    """A value with more elements before and behind along an axis.

    Args:
        ctx: with the plan.
        value: float, or bytes, which stay bytes.
        axis: that grows.
        before: how many elements; the engine refuses shapes for which they are fewer than 0.
        behind: how many.
        fill: the real number that is put there; None: the outermost element again.
    """
    if before.constant == 0 and behind.constant == 0:
        return value
    value = ctx.builder.plain(ctx.builder.bytes_of(value) if value.quant is not None else value)
    if value.array is not None:
        raise Refusal("a padding of a constant by what depends on the inputs' shapes")
    sides = [_side(ctx, value, axis, before, fill, first=True), _side(ctx, value, axis, behind, fill, first=False)]
    whole = [part for part in (sides[0], tensor_of(value), sides[1]) if part is not None]
    dims = list(value.dims)
    dims[axis] = value.dims[axis] + before + behind
    lengths = [
        size
        for size, part in zip((before, value.dims[axis], behind), (sides[0], value, sides[1]), strict=True)
        if part is not None
    ]
    outer, inner = product(dims[:axis]), product(dims[axis + 1 :])
    made = ctx.builder.new(value.dtype, [outer, dims[axis], inner])
    parts = [ctx.builder.view(part, [outer, size, inner]) for part, size in zip(whole, lengths, strict=True)]
    ctx.builder.emit("concat", parts, [made], axis=1)
    return replace(value, form=Form.plain(dims), tensor=made, weights=None)


def _side(ctx: Context, value: Value, axis: int, count: Dim, fill: float | None, *, first: bool) -> Tensor | None:
    """What is put before or behind; None for nothing."""
    if count.constant == 0:
        return None
    dims = list(value.dims)
    dims[axis] = count
    made = ctx.builder.new(value.dtype, dims)
    if fill is None:
        start, end = (dim(0), dim(1)) if first else (value.dims[axis] - 1, value.dims[axis])
        given = ctx.builder.plain(sliced(value, axis, start, end, 1, ctx))
        ctx.builder.emit("expand", [ctx.builder.view(tensor_of(given), given.dims)], [made])
    else:
        number = np.asarray(fill, np.float32) if value.quant is None else value.quant.rounded(np.asarray(fill))
        one = np.asarray(number, numpy_name(value.dtype)).reshape(1)
        ctx.builder.emit("expand", [ctx.builder.constant(one, [dim(1)] * len(dims))], [made])
    return made
