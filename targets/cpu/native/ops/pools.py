"""Pools."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgewise.targets.cpu.native.builder import tensor_of
from edgewise.targets.cpu.native.context import (
    Context,
    attribute_int,
    attribute_ints,
    rounding_after,
)
from edgewise.targets.cpu.native.form import Form
from edgewise.targets.cpu.native.ops.linear import Window, window_of, windowed
from edgewise.targets.cpu.native.ops.norm import reduced, reduced_form
from edgewise.targets.cpu.native.ops.spatial import in_images
from edgewise.targets.cpu.native.plan import DType, Layout
from edgewise.targets.cpu.native.value import Quant, Refusal, Value

if TYPE_CHECKING:
    import onnx_ir as ir


def pool(node: ir.Node, ctx: Context) -> None:
    """MaxPool and AveragePool, of float32 or of bytes."""
    value = ctx.input(node, 0)
    kernel = attribute_ints(node, "kernel_shape") or []
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        raise Refusal("MaxPool whose indices are used")
    average = node.op_type == "AveragePool"
    pad_counts = attribute_int(node, "count_include_pad", 0)
    if average and not pad_counts:  # it must know what is padding
        window = window_of(node, kernel, value)
    else:
        value, window = windowed(ctx, node, kernel, value, 0.0 if average else -np.inf)
    if attribute_int(node, "ceil_mode", 0):
        whole = _ceiling(window, value)
        if average and pad_counts and whole.pads != window.pads:
            raise Refusal("an average that counts its padding, but not what ceil_mode adds to it")
        window = whole
    _pooled(node, ctx, value, window, average=average, include_pad=pad_counts)


def _ceiling(window: Window, value: Value) -> Window:
    """``ceil_mode`` as more padding at the end, which is the same unless an average counts it."""
    rank, pads = len(window.kernel), list(window.pads)
    for axis in range(rank):
        reach, stride = window.dilations[axis] * (window.kernel[axis] - 1) + 1, window.strides[axis]
        if value.dims[axis + 2].constant is None and reach >= pads[axis + rank] + stride:
            pads[axis + rank] += stride - 1  # rounding down then is rounding up, and no window begins in the padding
            continue
        span = value.size(axis + 2) + pads[axis] + pads[axis + rank] - reach
        steps = -(-span // stride)
        if steps * stride >= value.size(axis + 2) + pads[axis]:
            steps -= 1  # a window must begin inside
        pads[axis + rank] += max(steps * stride - span, 0)
    return replace(window, pads=pads)


def global_pool(node: ir.Node, ctx: Context) -> None:
    """Over all pixels."""
    value = ctx.input(node, 0)
    average, axes = node.op_type == "GlobalAveragePool", list(range(2, value.rank))
    if any(value.dims[axis].constant is None for axis in axes):
        form = reduced_form(value.form, axes, keep=True)
        ctx.give(node, reduced(ctx, value, axes, form, "mean" if average else "max"))
        return
    sizes = [value.size(axis) for axis in axes]
    rank = len(sizes)
    window = Window(sizes, [1] * rank, [1] * rank, [0] * (2 * rank))
    _pooled(node, ctx, value, window, average=average, include_pad=0)


def _pooled(node: ir.Node, ctx: Context, value: Value, window: Window, *, average: bool, include_pad: int) -> None:
    rounding = rounding_after(node.outputs[0])
    if value.quant is not None and average and rounding is not None:
        quant: Quant | None = rounding
    else:
        quant = value.quant if value.in_bytes and not average else None
    in_bytes = quant is not None and bool(value.form.numbers(1))
    value = in_images(ctx, value, in_bytes=in_bytes)
    sizes = window.sizes(list(value.dims[2:]))
    dims = [value.dims[0], value.dims[1], *sizes]
    layout = Layout.C4 if in_bytes else Layout.PLAIN
    made = ctx.builder.new(quant.dtype if in_bytes and quant else DType.F32, dims, layout)
    grids: dict[str, float | int] = {}
    if in_bytes and average and quant is not None and value.quant is not None:
        for key, one in (("x", value.quant), ("y", quant)):
            grids |= {f"{key}_scale": one.scale, f"{key}_zero_point": one.zero_point}
    function = "average" if average else "max"
    given = ctx.builder.view(tensor_of(value), value.dims, layout=layout)
    ctx.builder.emit(
        "pool",
        [given],
        [made],
        function=function,
        include_pad=include_pad if average else None,
        **window.attributes(),
        **grids,
    )
    form = Form.plain(dims)
    lane = form.numbers(1)[-1] if in_bytes else None
    ctx.give(node, Value(form, made, lane, quant if in_bytes else None))
