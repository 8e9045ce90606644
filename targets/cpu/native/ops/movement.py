"""Operators that only say where elements are: they change a value's form, and memory as late and as little as possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgewise.targets.cpu.native.builder import lane_in, tensor_of
from edgewise.targets.cpu.native.context import Context, attribute_int, attribute_ints, attribute_text, is_op
from edgewise.targets.cpu.native.form import Form, quotient
from edgewise.targets.cpu.native.plan import Dim, DType, Layout, Tensor, dim, product
from edgewise.targets.cpu.native.value import Refusal, Value, constant_value

if TYPE_CHECKING:
    import onnx_ir as ir


def view_of(node: ir.Node, value: Value, ctx: Context) -> Value | None:
    """What a node makes of its first input when that changes nothing in memory; None when it does, or is another node."""
    if is_op(node, "Transpose"):
        return transposed(value, attribute_ints(node, "perm") or list(range(value.rank))[::-1])
    if is_op(node, "Reshape") and ctx.known(node.inputs[1]):
        form = value.form.reshaped(_shape(node, value, ctx))
        return None if form is None else replace(value.with_form(form), lane=lane_in(value, form))
    return None


def reshape(node: ir.Node, ctx: Context) -> None:
    """Reshape, with 0 and -1 in the new shape."""
    value = ctx.input(node, 0)
    dims = _shape(node, value, ctx)
    if value.tensor is None and value.array is None:  # known sizes, which nothing has written yet
        ctx.give(node, replace(value, form=Form.plain(dims)))
        return
    ctx.give(node, replace(as_shape(value, dims, ctx), sizes=value.sizes))


def _shape(node: ir.Node, value: Value, ctx: Context) -> list[Dim]:
    shape = ctx.input(node, 1).sizes
    if shape is None:
        raise Refusal("a shape that is not known from the inputs' shapes")
    allow_zero = attribute_int(node, "allowzero", 0)
    wanted = [value.dims[index] if one.constant == 0 and not allow_zero else one for index, one in enumerate(shape)]
    return resolved(value.dims, wanted)


def resolved(dims: Sequence[Dim], wanted: Sequence[Dim]) -> list[Dim]:
    """A shape with -1 as ONNX has it, with the number in its place."""
    unknown = [index for index, one in enumerate(wanted) if one.constant == -1]
    if not unknown:
        return list(wanted)
    rest = quotient(product(dims), product([one for one in wanted if one.constant != -1]))
    if rest is None:
        raise Refusal("a shape with -1 that does not come out even for every size of the inputs")
    return [rest if one.constant == -1 else one for one in wanted]


def as_shape(value: Value, dims: Sequence[Dim], ctx: Context) -> Value:
    """The value under other axes; moved in memory only when an axis would begin inside of another's step."""
    if value.array is not None:
        return _reshaped_constant(value, dims)
    form = value.form.reshaped(dims)
    if form is None:
        value = ctx.builder.plain(value)
        form = Form.plain(dims)
        if product(form.memory) != product(value.form.memory) and product(form.memory).constant is not None:
            raise Refusal("a reshape to another number of elements")
        return value.with_form(form)
    return relaned(value, form, ctx)


def relaned(value: Value, form: Form, ctx: Context) -> Value:
    """The same memory under another form; four channels that lie together stay in one factor, or the value is unpacked."""
    if value.lane is None:
        return replace(value.with_form(form), sizes=None)
    lane = lane_in(value, form)
    return ctx.builder.unpacked(value).with_form(form) if lane is None else value.with_form(form, lane)


def _reshaped_constant(value: Value, dims: Sequence[Dim]) -> Value:
    sizes = [one.constant for one in dims]
    if value.array is None or any(size is None for size in sizes):
        raise Refusal("a constant in a shape that depends on the inputs")
    made = constant_value(value.array.reshape([int(size or 0) for size in sizes]))
    return replace(made, quant=value.quant, raw=value.raw)


def transpose(node: ir.Node, ctx: Context) -> None:
    """Exchange axes: free."""
    value = ctx.input(node, 0)
    perm = attribute_ints(node, "perm") or list(range(value.rank))[::-1]
    ctx.give(node, transposed(value, perm))


def transposed(value: Value, perm: Sequence[int]) -> Value:
    """The value with its axes exchanged."""
    if value.array is not None:
        made = constant_value(value.array.transpose(list(perm)))
        return replace(made, quant=value.quant, raw=value.raw)
    form = value.form.transposed(perm)
    lane = None
    if value.lane is not None:
        lane = form.order[value.form.order.index(value.lane)]
    return value.with_form(form, lane)


def flatten(node: ir.Node, ctx: Context) -> None:
    """Two axes."""
    value = ctx.input(node, 0)
    axis = attribute_int(node, "axis", 1)
    axis = axis + value.rank if axis < 0 else axis
    ctx.give(node, as_shape(value, [product(value.dims[:axis]), product(value.dims[axis:])], ctx))


def squeeze(node: ir.Node, ctx: Context) -> None:
    """Leave axes of size 1 out."""
    value = ctx.input(node, 0)
    axes = _axes(node, ctx)
    if axes is None:
        axes = [axis for axis, size in enumerate(value.dims) if size.constant == 1]
    gone = {value.axis(axis) for axis in axes}
    kept = [size for axis, size in enumerate(value.dims) if axis not in gone]
    made = as_shape(value, kept, ctx)
    ctx.give(node, replace(made, sizes=value.sizes))


def unsqueeze(node: ir.Node, ctx: Context) -> None:
    """Add axes of size 1."""
    value = ctx.input(node, 0)
    axes = _axes(node, ctx) or []
    rank = value.rank + len(axes)
    dims = list(value.dims)
    for axis in sorted(axis % rank for axis in axes):
        dims.insert(axis, dim(1))
    made = as_shape(value, dims, ctx) if value.tensor is not None or value.array is not None else value
    if value.tensor is None and value.array is None:
        made = replace(value, form=Form.plain(dims))
    ctx.give(node, replace(made, sizes=value.sizes))


def _axes(node: ir.Node, ctx: Context) -> list[int] | None:
    if (given := attribute_ints(node, "axes")) is not None:
        return given
    value = ctx.optional(node, 1)
    return None if value is None else fixed_sizes(value)


def fixed_sizes(value: Value) -> list[int]:
    """Integers that must be known now.

    Raises:
        Refusal: they depend on the inputs.
    """
    found = [] if value.sizes is None else [one.constant for one in value.sizes]
    if value.sizes is None or any(one is None for one in found):
        raise Refusal("integers that are not known now")
    return [int(one) for one in found if one is not None]


# -- parts of values


def slice_(node: ir.Node, ctx: Context) -> None:
    """Slice, along any axes, with steps."""
    value = ctx.input(node, 0)
    starts, ends = ctx.input(node, 1).sizes, ctx.input(node, 2).sizes
    if starts is None or ends is None:
        raise Refusal("bounds that are not known from the inputs' shapes")
    given = ctx.optional(node, 3)
    axes = fixed_sizes(given) if given is not None else list(range(len(starts)))
    given = ctx.optional(node, 4)
    steps = fixed_sizes(given) if given is not None else [1] * len(axes)
    if value.array is None and value.tensor is None:
        ctx.give(node, _slice_sizes(value, starts, ends, steps))
        return
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        value = sliced(value, value.axis(axis), start, end, step, ctx)
    ctx.give(node, value)


def _slice_sizes(value: Value, starts: Sequence[Dim], ends: Sequence[Dim], steps: Sequence[int]) -> Value:
    start, end = starts[0].constant, ends[0].constant
    if value.sizes is None or start is None or end is None:
        raise Refusal("bounds that depend on the inputs' shapes")
    kept = value.sizes[start : end : steps[0]]
    return sizes_value(kept)


def sizes_value(sizes: Sequence[Dim], *, scalar: bool = False) -> Value:
    """Integers that follow from the inputs' shapes, as a list or as one number."""
    form = Form.plain([] if scalar else [dim(len(sizes))])
    constants = [one.constant for one in sizes]
    array = None
    if all(one is not None for one in constants):
        array = np.asarray(constants, np.int64).reshape(() if scalar else (-1,))
    return Value(form, array=array, sizes=tuple(sizes))


def sliced(value: Value, axis: int, start: Dim, end: Dim, step: int, ctx: Context) -> Value:
    """A part of one axis."""
    size = value.dims[axis]
    first, count = _bounds(size, start, end, step)
    if count == size and first.constant == 0 and step == 1:
        return value
    if value.array is not None and first.constant is not None and count.constant is not None:
        index: list[slice | np.ndarray] = [slice(None)] * value.array.ndim
        index[axis] = first.constant + step * np.arange(count.constant)
        return replace(constant_value(value.array[tuple(index)]), quant=value.quant, raw=value.raw)
    if value.array is not None:
        value = ctx.builder.ordered(value, range(len(value.form.factors)))
    return _sliced_in_memory(_one_factor(value, axis, ctx), axis, first, count, step, ctx)


def _bounds(size: Dim, start: Dim, end: Dim, step: int) -> tuple[Dim, Dim]:
    """The first index and how many, clamped as in ONNX."""
    if step == 0:
        raise Refusal("a step of 0")
    low, high = (0, 0) if step > 0 else (-1, -1)
    first = _clamped(start, size, low, high)
    last = _clamped(end, size, low, high)
    count = (last - first if step > 0 else first - last).ceildiv(abs(step))
    return first, count if count.constant is None else count.maximum(0)


def _clamped(index: Dim, size: Dim, low: int, high: int) -> Dim:
    constant = index.constant
    if constant is None:  # from the inputs' shapes; where ONNX would clamp it, the engine refuses these shapes
        return index
    if constant < 0:
        return (size + constant).maximum(low)
    if constant == 0 or (constant <= (size.constant or 0) + high):
        return dim(constant)
    return size + high if constant > 1 << 30 else (size + high).minimum(constant)


def _one_factor(value: Value, axis: int, ctx: Context) -> Value:
    """The value with an axis that is one factor (or none, of size 1), in memory too."""
    form = value.form.merged()
    value = relaned(value, form, ctx)
    return ctx.builder.untangled(value) if len(form.axes[axis]) > 1 else value


def _sliced_in_memory(value: Value, axis: int, first: Dim, count: Dim, step: int, ctx: Context) -> Value:
    if not value.form.axes[axis]:
        if count.constant == 1:
            return value
        raise Refusal("a slice of an axis of size 1")
    number = value.form.numbers(axis)[0]
    axes = tuple((count,) if index == axis else one for index, one in enumerate(value.form.axes))
    form = Form(axes, value.form.order)
    if value.lane == number:
        return _sliced_lane(value, form, first, count, step, ctx)
    made = _cut(value, number, first, count, step, ctx)
    return _dropped_ones(replace(made, form=form), value.lane)


def _sliced_lane(value: Value, form: Form, first: Dim, count: Dim, step: int, ctx: Context) -> Value:
    number = value.lane
    if number is None:
        raise AssertionError
    start, size, whole = first.constant, count.constant, value.form.factors[number].constant
    fits = start is not None and size is not None and whole is not None and step == 1 and start % 4 == 0
    if fits and start is not None and size is not None and (size % 4 == 0 or start + size == whole):
        made = _cut(value, number, dim(start // 4), dim(-(-size // 4)), 1, ctx)
        return replace(made, form=form)
    plain = replace(ctx.builder.unpacked(value))
    return _dropped_ones(replace(_cut(plain, number, first, count, step, ctx), form=form), None)


def _cut(value: Value, number: int, first: Dim, count: Dim, step: int, ctx: Context) -> Value:
    """Part of a factor, in memory: a view when nothing lies outside of it, else a copy."""
    builder = ctx.builder
    if value.lane is not None:
        tensor, memory = builder.words(value)
    else:
        tensor, memory = tensor_of(value), value.form.memory
    at = value.form.order.index(number)
    before, after = product(memory[:at]), product(memory[at + 1 :])
    given = builder.view(tensor, [before, memory[at], after], layout=Layout.PLAIN)
    dims = [before, count, after]
    if before.constant == 1 and step == 1 and given.data is None:
        offset = first * after * given.dtype.size_bytes
        made = builder.view(given, dims, offset_bytes=offset)
    else:
        made = builder.converted(
            "slice", given, given.dtype, dims, Layout.PLAIN, starts=[dim(0), first, dim(0)], steps=[1, step, 1]
        )
    return _retyped(value, made, ctx)


def _retyped(value: Value, made: Tensor, ctx: Context) -> Value:
    """Words back as bytes in C4."""
    if value.lane is None:
        return replace(value, tensor=made)
    dims = [made.dims[0], made.dims[1] * 4, made.dims[2]]
    if tensor_of(value).dtype is not DType.S32:
        made = ctx.builder.view(made, dims, dtype=tensor_of(value).dtype, layout=Layout.C4)
    return replace(value, tensor=made)


def _dropped_ones(value: Value, lane: int | None) -> Value:
    """Forms have no factors of size 1."""
    form = value.form
    for number in range(len(form.factors) - 1, -1, -1):
        if form.factors[number].constant == 1 and number != lane:
            form = _without(form, number)
            lane = lane - 1 if lane is not None and lane > number else lane
    return value.with_form(form, lane)


def _without(form: Form, number: int) -> Form:
    axes, seen = [], 0
    for axis in form.axes:
        at = number - seen
        axes.append((*axis[:at], *axis[at + 1 :]) if 0 <= at < len(axis) else axis)
        seen += len(axis)
    order = tuple(one - 1 if one > number else one for one in form.order if one != number)
    return Form(tuple(axes), order)


def split(node: ir.Node, ctx: Context) -> None:
    """Parts of an axis that lie one behind the other."""
    value = ctx.input(node, 0)
    axis = value.axis(attribute_int(node, "axis", 0))
    given = ctx.optional(node, 1)
    if given is not None:
        sizes = fixed_sizes(given)
    elif (listed := attribute_ints(node, "split")) is not None:
        sizes = listed
    else:
        each = -(-value.size(axis) // len(node.outputs))
        sizes = [min(each, value.size(axis) - each * index) for index in range(len(node.outputs))]
    start = 0
    for index, size in enumerate(sizes):
        ctx.give(node, sliced(value, axis, dim(start), dim(start + size), 1, ctx), index)
        start += size


def gather(node: ir.Node, ctx: Context) -> None:
    """One index: a slice. Several: rows picked by a table."""
    value, indices = ctx.input(node, 0), ctx.input(node, 1)
    axis = value.axis(attribute_int(node, "axis", 0))
    if value.tensor is None and value.array is None and value.sizes is not None:
        picked = [value.sizes[index] for index in fixed_sizes(indices)]
        ctx.give(node, sizes_value(picked, scalar=indices.rank == 0))
        return
    if indices.array is not None and indices.array.size == 1 and value.array is None:
        index = int(indices.array.reshape(-1)[0])
        index = index + value.size(axis) if index < 0 else index
        part = sliced(value, axis, dim(index), dim(index + 1), 1, ctx)
        dims = [*part.dims[:axis], *([dim(1)] * indices.rank), *part.dims[axis + 1 :]]
        ctx.give(node, as_shape(part, dims, ctx))
        return
    gather_rows(node, value, indices, axis, ctx)


def gather_rows(node: ir.Node, value: Value, indices: Value, axis: int, ctx: Context) -> None:
    """The entries along an axis that indices name, as the node's output."""
    builder = ctx.builder
    rounding = value.quant
    data, index = builder.plain(builder.real(value)), builder.plain(indices)
    before, after = product(value.dims[:axis]), product(value.dims[axis + 1 :])
    count = product(indices.dims)
    given = builder.view(_tensor(data, ctx), [before, value.dims[axis], after])
    made = builder.new(given.dtype, [before, count, after])
    builder.emit("gather", [given, builder.view(_tensor(index, ctx), [count])], [made], axis=1)
    dims = [*value.dims[:axis], *indices.dims, *value.dims[axis + 1 :]]
    ctx.give(node, Value(Form.plain(dims), made, quant=rounding))


def gather_elements(node: ir.Node, ctx: Context) -> None:
    """For each index the element of the same place but on one axis."""
    builder = ctx.builder
    value, indices = builder.plain(builder.real(ctx.input(node, 0))), builder.plain(ctx.input(node, 1))
    axis = value.axis(attribute_int(node, "axis", 0))
    given, index = builder.view(_tensor(value, ctx), value.dims), builder.view(_tensor(indices, ctx), indices.dims)
    made = builder.new(given.dtype, indices.dims)
    builder.emit("gather_elements", [given, index], [made], axis=axis)
    ctx.give(node, Value(Form.plain(indices.dims), made))


def scatter(node: ir.Node, ctx: Context) -> None:
    """Rows [rows, inner] replaced by others where indices say so (``written/indexing.py`` makes these nodes)."""
    builder = ctx.builder
    rows, indices, updates = (builder.plain(builder.real(ctx.input(node, index))) for index in range(3))
    given = [builder.view(_tensor(one, ctx), one.dims) for one in (rows, indices, updates)]
    made = builder.new(given[0].dtype, rows.dims)
    builder.emit("scatter", given, [made], reduction=attribute_text(node, "reduction", "none"))
    ctx.give(node, Value(Form.plain(rows.dims), made))


def tile(node: ir.Node, ctx: Context) -> None:
    """Whole values side by side along every axis."""
    value, counts = ctx.input(node, 0), ctx.input(node, 1).sizes
    if counts is None:
        raise Refusal("counts that are not known from the inputs' shapes")
    value = ctx.builder.plain(ctx.builder.real(value))
    dims = [size * count for size, count in zip(value.dims, counts, strict=True)]
    made = ctx.builder.new(value.dtype, dims)
    ctx.builder.emit("tile", [ctx.builder.view(_tensor(value, ctx), value.dims)], [made])
    ctx.give(node, Value(Form.plain(dims), made))


def _tensor(value: Value, ctx: Context) -> Tensor:
    return ctx.builder.constant(value.array) if value.array is not None else tensor_of(value)
