"""Padding, resizing, joining: values with channels and pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from edgewise.targets.cpu.native.align import refine, with_factors
from edgewise.targets.cpu.native.builder import array_of, tensor_of
from edgewise.targets.cpu.native.context import (
    Context,
    attribute_float,
    attribute_int,
    attribute_ints,
    attribute_text,
    rounding_after,
)
from edgewise.targets.cpu.native.form import Axis, Form, common_factors
from edgewise.targets.cpu.native.ops.movement import fixed_sizes, relaned, sizes_value
from edgewise.targets.cpu.native.ops.padding import grown
from edgewise.targets.cpu.native.plan import Dim, DType, Layout, Tensor, dim, product
from edgewise.targets.cpu.native.value import Quant, Refusal, Value, constant_value

if TYPE_CHECKING:
    import onnx_ir as ir


def in_images(ctx: Context, value: Value, *, in_bytes: bool) -> Value:
    """[images, channels, pixels] in this order in memory, each axis one factor; bytes in C4, else float32."""
    if not in_bytes:
        return ctx.builder.plain(ctx.builder.real(value))
    if value.form.numbers(1):
        value = ctx.builder.ordered(value, range(len(value.form.factors)))
        return ctx.builder.packed(value, value.form.numbers(1))
    raise Refusal("bytes of one channel")


# -- Pad


def pad(node: ir.Node, ctx: Context) -> None:
    """Constant, reflected or repeated elements around; bytes whose border is a real 0 stay bytes."""
    value = ctx.input(node, 0)
    listed = attribute_ints(node, "pads")
    given = list(map(dim, listed)) if listed is not None else list(ctx.input(node, 1).sizes or ())
    if not given:
        raise Refusal("pads that only a run knows; make them constants, or compute them from shapes")
    mode = attribute_text(node, "mode", "constant")
    fill = ctx.optional(node, 2)
    number = 0.0 if fill is None else float(array_of(fill).reshape(-1)[0])
    if (axes := ctx.optional(node, 3)) is not None:
        given = _all_axes(given, [value.axis(axis) for axis in fixed_sizes(axes)], value.rank)
    pads = [int(size) for one in given if (size := one.constant) is not None]
    if len(pads) < len(given):
        ctx.give(node, _padded_by_shapes(ctx, value, given, mode, number))
        return
    if any(one < 0 for one in pads):
        raise Refusal("a negative padding")
    if value.quant is not None and value.in_bytes and value.lane is not None and number == 0.0 and mode == "constant":
        made = _padded_words(ctx, value, pads)
        if made is not None:
            ctx.give(node, made)
            return
    value = ctx.builder.real(value)
    form = value.form.merged()
    if any(len(axis) > 1 for axis in form.axes):
        value = ctx.builder.untangled(value)
        form = value.form
    made = _padded(ctx, tensor_of(value), form, value.dims, pads, mode, number)
    ctx.give(node, made)


def _padded_by_shapes(ctx: Context, value: Value, pads: Sequence[Dim], mode: str, number: float) -> Value:
    if mode not in ("constant", "edge"):
        raise Refusal(f"pads of mode {mode!r} that depend on the inputs' shapes; fix them with --input")
    for axis in range(value.rank):
        value = grown(ctx, value, axis, pads[axis], pads[axis + value.rank], number if mode == "constant" else None)
    return value


def _all_axes(pads: Sequence[Dim], axes: Sequence[int], rank: int) -> list[Dim]:
    found = [dim(0)] * (2 * rank)
    for index, axis in enumerate(axes):
        found[axis], found[axis + rank] = pads[index], pads[index + len(axes)]
    return found


def _memory_pads(form: Form, pads: Sequence[int]) -> tuple[list[int], list[int]] | None:
    """Per factor in memory what is added before and behind; None when an axis without a factor grows."""
    rank = len(form.axes)
    owner = {number: axis for axis in range(rank) for number in form.numbers(axis)}
    grown = [axis for axis in range(rank) if pads[axis] or pads[axis + rank]]
    if any(not form.axes[axis] for axis in grown):
        return None
    return [pads[owner[number]] for number in form.order], [pads[owner[number] + rank] for number in form.order]


def _padded(
    ctx: Context, tensor: Tensor, form: Form, dims: Sequence[Dim], pads: Sequence[int], mode: str, number: float
) -> Value:
    rank, sides = len(form.axes), _memory_pads(form, pads)
    new_dims = [size + (pads[axis] + pads[axis + rank]) for axis, size in enumerate(dims)]
    if sides is None:  # an axis of size 1 grows: by ONNX's own axes
        if not form.is_plain:
            raise Refusal("a padding of an axis of size 1 of a transposed value")
        given, before, behind = ctx.builder.view(tensor, dims), list(pads[:rank]), list(pads[rank:])
        made_dims, result = new_dims, Form.plain(new_dims)
    else:
        before, behind = sides
        given = ctx.builder.view(tensor, form.memory)
        made_dims = [size + (a + b) for size, a, b in zip(form.memory, before, behind, strict=True)]
        axes = tuple((new_dims[axis],) if one else () for axis, one in enumerate(form.axes))
        result = Form(axes, form.order)
    made = ctx.builder.new(tensor.dtype, made_dims)
    value: float | int = number if tensor.dtype is DType.F32 else int(number)
    ctx.builder.emit("pad", [given], [made], pads=[*before, *behind], mode=mode, value=value)
    return Value(result, made)


def _padded_words(ctx: Context, value: Value, pads: Sequence[int]) -> Value | None:
    """C4: words of four zero points around; channels only by whole words."""
    form = value.form
    if value.quant is None or value.lane is None or any(len(axis) > 1 for axis in form.axes):
        return None
    sides = _memory_pads(form, pads)
    if sides is None:
        return None
    before, behind = sides
    at = form.order.index(value.lane)
    size = form.memory[at].constant
    if before[at] % 4 or (behind[at] and (size is None or size % 4)):
        return None
    given, words = ctx.builder.words(value)
    counts = [(-(-one // 4) if index == at else one) for index, one in enumerate(before)]
    ends = [(-(-one // 4) if index == at else one) for index, one in enumerate(behind)]
    made_dims = [one + (a + b) for one, a, b in zip(words, counts, ends, strict=True)]
    byte = value.quant.zero_point % 256
    word = int(np.array([byte] * 4, np.uint8).view(np.int32)[0])
    made = ctx.builder.new(DType.S32, made_dims)
    ctx.builder.emit("pad", [given], [made], pads=[*counts, *ends], mode="constant", value=word)
    axes = list(form.axes)
    rank = len(axes)
    for axis in range(rank):
        if axes[axis]:
            axes[axis] = (axes[axis][0] + (pads[axis] + pads[axis + rank]),)
    result = Form(tuple(axes), form.order)
    return replace(value, form=result, tensor=ctx.builder.bytes_from(made, made_dims, at, value))


# -- Concat


def concat(node: ir.Node, ctx: Context) -> None:
    """Values one behind the other along an axis."""
    values = [ctx.input(node, index) for index in range(len(node.inputs))]
    if all(value.sizes is not None for value in values):
        ctx.give(node, sizes_value([one for value in values for one in value.sizes or ()]))
        return
    axis = values[0].axis(attribute_int(node, "axis", 0))
    rounding = rounding_after(node.outputs[0])
    values = _on_one_grid(ctx, values, None if rounding is None else rounding)
    values = [value for value in values if value.dims[axis].constant != 0]
    try:
        made = joined(ctx, values, axis)
    except Refusal:  # axes that have no factors in common, or of size 1 only
        made = _joined_rows(ctx, values, axis)
    ctx.give(node, made)


def _joined_rows(ctx: Context, values: list[Value], axis: int) -> Value:
    """All of them row by row as ONNX has them, and so the result."""
    plain = [ctx.builder.plain(ctx.builder.real(value)) for value in values]
    parts = [
        ctx.builder.view(tensor_of(one), [product(one.dims[:axis]), one.dims[axis], product(one.dims[axis + 1 :])])
        for one in plain
    ]
    length = dim(0)
    for one in plain:
        length = length + one.dims[axis]
    made = ctx.builder.new(parts[0].dtype, [parts[0].dims[0], length, parts[0].dims[2]])
    ctx.builder.emit("concat", parts, [made], axis=1)
    return Value(Form.plain([*plain[0].dims[:axis], length, *plain[0].dims[axis + 1 :]]), made)


def _on_one_grid(ctx: Context, values: list[Value], wanted: Quant | None) -> list[Value]:
    """All as bytes of one scale where that loses nothing, else all as float32."""
    from edgewise.targets.cpu.native.ops.quantized import on_grid

    quants = {value.quant for value in values}
    computed = all(value.array is None for value in values)
    if len(quants) == 1 and None not in quants and computed:
        wanted = values[0].quant
    if wanted is not None and computed and any(value.in_bytes for value in values):
        return [ctx.builder.bytes_of(on_grid(value, wanted, ctx)) for value in values]
    if len(quants) == 1 and computed:  # floats that are all rounded alike, by who reads them
        return values
    return [ctx.builder.real(value) for value in values]


def joined(ctx: Context, values: list[Value], axis: int) -> Value:
    """The values behind each other, in the order in memory of the first computed one."""
    leader = next((value for value in values if value.array is None), None)
    if leader is None:
        raise Refusal("constants that were not folded")
    values = [_single(ctx, value, axis) for value in values]
    leader = next(value for value in values if value.array is None)
    axes = _shared_axes(values, axis)
    if axes is None:
        values = [value if value.array is not None else ctx.builder.untangled(value) for value in values]
        leader = next(value for value in values if value.array is None)
        axes = _shared_axes(values, axis)
    if axes is None:
        raise Refusal("shapes that do not fit together")
    placed = [_beside(ctx, value, axes, axis, leader) for value in values]
    return _joined_in_memory(ctx, placed, axis)


def _single(ctx: Context, value: Value, axis: int) -> Value:
    """With the joined axis as one factor, also of size 1."""
    if len(value.form.axes[axis]) == 1:
        return value
    if len(value.form.axes[axis]) > 1:
        merged = value.form.merged()
        if value.array is None and len(merged.axes[axis]) > 1:
            return ctx.builder.untangled(value)
        return value.with_form(merged) if value.array is not None else relaned(value, merged, ctx)
    first = sum(len(one) for one in value.form.axes[:axis])
    axes = list(value.form.axes)
    axes[axis] = (dim(1),)
    order = [number + 1 if number >= first else number for number in value.form.order]
    at = next((index for index, number in enumerate(order) if number > first), len(order))
    order.insert(at, first)
    if value.lane is not None:
        value = ctx.builder.unpacked(value)
    return replace(value, form=Form(tuple(axes), tuple(order)))


def _shared_axes(values: list[Value], axis: int) -> list[Axis | None] | None:
    """Common factors of all axes but the joined one, which is None."""
    found: list[Axis | None] = []
    for index in range(values[0].rank):
        common: Axis | None = values[0].form.axes[index]
        for value in values[1:]:
            common = None if common is None else common_factors(common, value.form.axes[index])
        if common is None and index != axis:
            return None
        found.append(None if index == axis else common)
    return found


def _beside(ctx: Context, value: Value, axes: list[Axis | None], axis: int, leader: Value) -> Value:
    own = [value.form.axes[index] if one is None else one for index, one in enumerate(axes)]
    whole = [leader.form.axes[index] if one is None else one for index, one in enumerate(axes)]
    wanted = refine(leader.form, whole)
    if wanted is None:
        raise Refusal("shapes that do not fit together")
    if value.array is not None:
        form = refine(value.form, own)
        if form is None:
            raise Refusal("shapes that do not fit together")
        return ctx.builder.ordered(replace(value, form=form), wanted.order)
    found = with_factors(ctx, value, own)
    if found is None:
        found = with_factors(ctx, ctx.builder.untangled(value), own)
    if found is None:
        raise Refusal("shapes that do not fit together")
    return ctx.builder.ordered(found, wanted.order)


def _joined_in_memory(ctx: Context, values: list[Value], axis: int) -> Value:
    values = _same_lanes(ctx, values, axis)
    first, number = values[0], values[0].form.numbers(axis)[0]
    at = first.form.order.index(number)
    total = values[0].dims[axis]
    for value in values[1:]:
        total = total + value.dims[axis]
    parts = []
    for value in values:
        tensor, memory = ctx.builder.words(value) if value.lane is not None else (tensor_of(value), value.form.memory)
        parts.append(
            ctx.builder.view(tensor, [product(memory[:at]), memory[at], product(memory[at + 1 :])], layout=Layout.PLAIN)
        )
    length = parts[0].dims[1]
    for part in parts[1:]:
        length = length + part.dims[1]
    dims = [parts[0].dims[0], length, parts[0].dims[2]]
    made = ctx.builder.new(parts[0].dtype, dims)
    if not _laid_out(ctx, parts, made):
        ctx.builder.emit("concat", parts, [made], axis=1)
    axes = tuple((total,) if index == axis else one for index, one in enumerate(first.form.axes))
    form = Form(axes, first.form.order)
    if first.lane is None:
        return replace(first, form=form, tensor=made)
    lane_at = first.form.order.index(first.lane)
    memory = tuple(form.factors[one].ceildiv(4) if one == first.lane else form.factors[one] for one in form.order)
    return replace(first, form=form, tensor=ctx.builder.bytes_from(made, memory, lane_at, first))


def _same_lanes(ctx: Context, values: list[Value], axis: int) -> list[Value]:
    """All in C4 with the same lanes, whole words each along the joined axis; or none of them."""
    lanes = {value.lane for value in values}
    if lanes == {None}:
        return values
    number = values[0].form.numbers(axis)[0]
    whole = len(lanes) == 1
    if whole and number in lanes:
        sizes = [value.dims[axis].constant for value in values[:-1]]
        whole = all(size is not None and size % 4 == 0 for size in sizes)
    return values if whole else [ctx.builder.unpacked(value) for value in values]


def _laid_out(ctx: Context, parts: list[Tensor], made: Tensor) -> bool:
    """Have the parts computed where they belong, when nothing else lies around them; False when one cannot."""
    if made.dims[0].constant != 1:
        return False
    storages = [part.storage for part in parts]
    if any(part.data is not None or part.offset_bytes.constant != 0 for part in parts) or len(set(storages)) < len(
        parts
    ):
        return False
    for part in parts:
        if part.storage is None or part.storage in ctx.builder.fixed or part.storage.size_bytes != part.size_bytes:
            return False
    offset = dim(0)
    for part in parts:
        if part.storage is None or made.storage is None:
            raise AssertionError
        ctx.builder.relocate(part.storage, made.storage, offset)
        offset = offset + part.size_bytes
    return True


# -- Resize


_WHOLE = 1e-4  # of a size
_SMALL = 64


def resize(node: ir.Node, ctx: Context) -> None:
    """Nearest, linear and cubic."""
    value = ctx.builder.plain(ctx.builder.real(ctx.input(node, 0)))
    scales, dims = _resized(node, ctx, value)
    mode = attribute_text(node, "mode", "nearest")
    coordinate = attribute_text(node, "coordinate_transformation_mode", "half_pixel")
    if node.op_type == "Upsample":
        coordinate = "asymmetric"
    if coordinate == "align_corners" and not all(map(_is_whole, value.dims, dims, scales)):
        raise Refusal("Resize between corners to a size that is not whole")
    made = ctx.builder.new(DType.F32, dims)
    nearest = attribute_text(node, "nearest_mode", "round_prefer_floor")
    ctx.builder.emit(
        "resize", [ctx.builder.view(tensor_of(value), value.dims)], [made], function=mode, coordinate=coordinate,
        nearest_mode="floor" if node.op_type == "Upsample" else nearest, cubic_coeff=attribute_float(node, "cubic_coeff_a", -0.75),
        exclude_outside=attribute_int(node, "exclude_outside", 0), scales=scales,
    )  # fmt: skip
    ctx.give(node, Value(Form.plain(dims), made))


def _resized(node: ir.Node, ctx: Context, value: Value) -> tuple[list[float], list[Dim]]:
    index = 1 if node.op_type == "Upsample" else 2
    given = ctx.optional(node, index)
    axes = [value.axis(axis) for axis in attribute_ints(node, "axes") or range(value.rank)]
    scales, dims = [1.0] * value.rank, list(value.dims)
    if given is not None and given.array is not None and given.array.size:
        for axis, scale in zip(axes, given.array.reshape(-1), strict=True):
            scales[axis], dims[axis] = float(scale), _scaled(dims[axis], float(scale))
        return scales, dims
    sizes = ctx.optional(node, 3)
    if sizes is None or sizes.sizes is None:
        raise Refusal("Resize to a size that is not known")
    for axis, want in zip(axes, sizes.sizes, strict=True):
        size, known = dims[axis].constant, want.constant
        # 0: that of the sizes when they are known
        scales[axis], dims[axis] = known / size if size and known else float(want == dims[axis]), want
    return scales, dims


def _scaled(size: Dim, scale: float) -> Dim:
    """Rounded down; of a size that depends on the inputs by a scale that is a fraction of small numbers."""
    if scale == 1:
        return size
    if size.constant is not None:
        return dim(int(np.floor(size.constant * scale)))
    part = Fraction(scale).limit_denominator(_SMALL)
    if np.float32(part.numerator / part.denominator) != np.float32(scale):
        raise Refusal(f"Resize by {scale:g} of a size that depends on the inputs")
    return size * part.numerator // part.denominator


def _is_whole(size: Dim, made: Dim, scale: float) -> bool:
    """Whether a size times its scale is a whole number."""
    if size.constant is not None and made.constant is not None:
        return scale == 1 or abs(size.constant * scale - made.constant) <= _WHOLE
    return scale == int(scale)


# -- DepthToSpace and back are reshapes and transpositions


def depth_to_space(node: ir.Node, ctx: Context) -> None:
    """Channels to pixels: a view."""
    from edgewise.targets.cpu.native.ops.movement import as_shape, transposed

    value, block = ctx.input(node, 0), attribute_int(node, "blocksize", 1)
    images, channels, height, width = value.dims
    inner, size = channels // (block * block), dim(block)
    if attribute_text(node, "mode", "DCR") == "DCR":
        split, perm = [images, size, size, inner, height, width], [0, 3, 4, 1, 5, 2]
    else:
        split, perm = [images, inner, size, size, height, width], [0, 1, 4, 2, 5, 3]
    value = transposed(as_shape(value, split, ctx), perm)
    ctx.give(node, as_shape(value, [images, inner, height * block, width * block], ctx))


def space_to_depth(node: ir.Node, ctx: Context) -> None:
    """Pixels to channels: a view."""
    from edgewise.targets.cpu.native.ops.movement import as_shape, transposed

    value, block = ctx.input(node, 0), attribute_int(node, "blocksize", 1)
    images, channels, height, width = value.dims
    size = dim(block)
    value = as_shape(value, [images, channels, height // block, size, width // block, size], ctx)
    blocks_first = attribute_text(node, "mode", "DCR") == "DCR"
    value = transposed(value, [0, 3, 5, 1, 2, 4] if blocks_first else [0, 1, 3, 5, 2, 4])
    ctx.give(node, as_shape(value, [images, channels * (block * block), height // block, width // block], ctx))


def constant_of_shape(node: ir.Node, ctx: Context) -> None:
    """The same number everywhere; of a shape that depends on the inputs, repeated."""
    wanted = ctx.input(node, 0).sizes
    if wanted is None:
        raise Refusal("a shape that is not known from the inputs' shapes")
    number = np.zeros(1, np.float32)
    if "value" in node.attributes:
        number = node.attributes["value"].as_tensor().numpy().reshape(1)
    sizes = [one.constant for one in wanted]
    if all(size is not None for size in sizes):
        ctx.give(node, constant_value(np.full([size or 0 for size in sizes], number[0])))
        return
    made = ctx.builder.new(constant_value(number).dtype, wanted)
    given = ctx.builder.constant(number, [dim(1)] * len(wanted))
    ctx.builder.emit("expand", [given], [made])
    ctx.give(node, Value(Form.plain(wanted), made))
