"""Results whose size a run finds out: their memory is placed for the most, and what follows is computed for what was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewise.targets.cpu.native.builder import tensor_of
from edgewise.targets.cpu.native.context import Context, attribute_float, attribute_int, attribute_text
from edgewise.targets.cpu.native.form import Form
from edgewise.targets.cpu.native.ops.elementwise import as_dtype, known
from edgewise.targets.cpu.native.ops.movement import as_shape, gather_rows, sliced
from edgewise.targets.cpu.native.plan import Dim, DType, Tensor, counted, dim, product
from edgewise.targets.cpu.native.value import Refusal, Value, constant_value

if TYPE_CHECKING:
    import onnx_ir as ir

_MOST_PLACES = 64  # that the engine takes on a side of a cell (ops/roi_align.cpp)


def nonzero(node: ir.Node, ctx: Context) -> None:
    """The places of all elements that are not 0: one row for each axis."""
    ctx.give(node, _places(ctx.input(node, 0), ctx))


def _places(value: Value, ctx: Context) -> Value:
    builder = ctx.builder
    value = builder.plain(builder.real(known(value, ctx)))
    if not value.rank:
        raise Refusal("NonZero of one number")
    most = product(value.dims)
    made, count = builder.new(DType.S64, [dim(value.rank), most]), builder.new(DType.S64, [dim(1)])
    builder.emit("nonzero", [builder.view(tensor_of(value), value.dims)], [made, count])
    return _part(ctx, made, [dim(value.rank), counted(count, most)])


def _part(ctx: Context, made: Tensor, dims: Sequence[Dim]) -> Value:
    """What of a tensor is used."""
    return Value(Form.plain(dims), ctx.builder.view(made, dims))


def compress(node: ir.Node, ctx: Context) -> None:
    """The entries along an axis for which a condition holds."""
    value, condition = ctx.input(node, 0), ctx.input(node, 1)
    if "axis" in node.attributes:
        axis = value.axis(attribute_int(node, "axis", 0))
    else:
        value, axis = as_shape(value, [product(value.dims)], ctx), 0
    length, whole = condition.dims[0], value.dims[axis]
    if length != whole and length.minimum(whole) != length:  # a shorter one leaves out what is behind it
        condition = sliced(condition, 0, dim(0), whole, 1, ctx)
    if condition.array is not None:
        places = constant_value(np.flatnonzero(condition.array))
    else:
        found = _places(condition, ctx)
        places = as_shape(found, [found.dims[1]], ctx)
    gather_rows(node, value, places, axis, ctx)


def non_max_suppression(node: ir.Node, ctx: Context) -> None:
    """Image, class and box of the best boxes of each class that do not cover each other; at most so many of each class as asked for."""
    builder = ctx.builder
    boxes, scores = (builder.plain(builder.real(ctx.input(node, index))) for index in range(2))
    limit, overlap, least = (ctx.optional(node, index) for index in range(2, 5))
    each = (
        dim(0)
        if limit is None
        else boxes.dims[1]
        if limit.sizes is None
        else boxes.dims[1].minimum(_limit(limit.sizes[0]))
    )
    images, classes, _ = scores.dims
    most = images * classes * each
    made, count = builder.new(DType.S64, [most, dim(3)]), builder.new(DType.S64, [dim(1)])
    given = [builder.view(tensor_of(one), one.dims) for one in (boxes, scores)]
    computed = [
        _computed(one, dtype, ctx) for one, dtype in ((limit, DType.S64), (overlap, DType.F32), (least, DType.F32))
    ]
    while computed and computed[-1] is None:
        computed.pop()
    builder.emit(
        "nms", [*given, *computed], [made, count], limit=[each], center=attribute_int(node, "center_point_box", 0),
        iou_threshold=_number(overlap) or 0.0, score_threshold=_number(least),
    )  # fmt: skip
    ctx.give(node, _part(ctx, made, [counted(count, most), dim(3)]))


def _limit(size: Dim) -> Dim:
    return size if size.constant is None else dim(max(0, min(size.constant, 1 << 40)))


def _number(value: Value | None) -> float | None:
    """One that is known now."""
    return None if value is None or value.array is None else float(value.array.reshape(-1)[0])


def _computed(value: Value | None, dtype: DType, ctx: Context) -> Tensor | None:
    """One that a run says."""
    if value is None or value.array is not None or value.sizes is not None:
        return None
    found = ctx.builder.plain(as_dtype(ctx.builder.real(value), dtype, ctx))
    return ctx.builder.view(tensor_of(found), found.dims)


def roi_align(node: ir.Node, ctx: Context) -> None:
    """Averages, or the largest, of places between pixels in each cell of boxes."""
    ratio = max(attribute_int(node, "sampling_ratio", 0), 0)
    if ratio > _MOST_PLACES:
        raise Refusal(f"sampling_ratio {ratio}, above {_MOST_PLACES}")
    builder = ctx.builder
    x, boxes = (builder.plain(builder.real(ctx.input(node, index))) for index in range(2))
    images = builder.plain(known(ctx.input(node, 2), ctx))
    cells = [dim(attribute_int(node, f"output_{name}", 1)) for name in ("height", "width")]
    dims = [boxes.dims[0], x.dims[1], *cells]
    made = builder.new(DType.F32, dims)
    half = attribute_text(
        node, "coordinate_transformation_mode", "half_pixel" if (node.version or 16) >= 16 else "output_half_pixel"
    )
    given = [
        builder.view(builder.constant(one.array) if one.array is not None else tensor_of(one), one.dims)
        for one in (x, boxes, images)
    ]
    builder.emit(
        "roi_align", given, [made], function="max" if attribute_text(node, "mode", "avg") == "max" else "average",
        half_pixel=int(half == "half_pixel"), ratio=ratio,
        scale=attribute_float(node, "spatial_scale", 1.0),
    )  # fmt: skip
    ctx.give(node, Value(Form.plain(dims), made))
