"""Normalisation, Softmax and reductions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgewise.targets.cpu.native.builder import array_of, tensor_of
from edgewise.targets.cpu.native.context import (
    Context,
    attribute_float,
    attribute_int,
    attribute_ints,
    rounding_after,
)
from edgewise.targets.cpu.native.form import Form
from edgewise.targets.cpu.native.ops.linear import with_channels
from edgewise.targets.cpu.native.ops.movement import fixed_sizes
from edgewise.targets.cpu.native.plan import Dim, DType, Layout, Tensor, dim, product
from edgewise.targets.cpu.native.value import Refusal, Value, constant_value

if TYPE_CHECKING:
    import onnx_ir as ir


def layer_normalization(node: ir.Node, ctx: Context) -> None:
    """LayerNormalization and RMSNormalization over the last axes. Of one axis that lies as channels before tokens: all tokens at once."""
    value = ctx.builder.real(ctx.input(node, 0))
    axis = value.axis(attribute_int(node, "axis", -1))
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        raise Refusal("LayerNormalization whose mean is used")
    operands = [_factors(ctx, ctx.optional(node, index), value.dims[axis:]) for index in (1, 2)]
    epsilon = attribute_float(node, "epsilon", 1e-5)
    if axis == value.rank - 1 and value.form.axes[axis]:
        if not _channels_in_one(value, axis):
            value = ctx.builder.untangled(value)
        if value.rank > 2:  # the layers that follow want it like this, and so may others that read the value
            value = with_channels(ctx, value, axis, spatial=False)
        _over_channels(node, ctx, value, axis, operands, epsilon)
        return
    source = ctx.builder.plain(value)
    dims = [product(value.dims[:axis]), product(value.dims[axis:])]
    made = ctx.builder.new(DType.F32, dims)
    given = ctx.builder.view(tensor_of(source), dims)
    ctx.builder.emit(_NORMS[node.op_type], [given, *operands], [made], axis=1, last=1, epsilon=epsilon)
    ctx.give(node, replace(source, tensor=made))


_NORMS = {"LayerNormalization": "layernorm", "RMSNormalization": "rmsnorm"}


def _factors(ctx: Context, value: Value | None, dims: Sequence[Dim]) -> Tensor | None:
    """A number for each normalised element, constant or computed."""
    if value is None:
        return None
    count = product(dims)
    if value.array is not None:
        array = value.array.astype(np.float32)
        if count.constant is not None and array.size != count.constant:
            array = np.broadcast_to(array, [one.constant or 0 for one in dims])
        return ctx.builder.constant(np.ascontiguousarray(array.reshape(-1)))
    if product(value.dims) != count:
        raise Refusal("computed factors that are repeated")
    return ctx.builder.view(tensor_of(ctx.builder.plain(ctx.builder.real(value))), [count])


def _channels_in_one(value: Value, axis: int) -> bool:
    numbers = value.form.numbers(axis)
    if not numbers:
        return False
    at = [value.form.order.index(number) for number in numbers]
    return at == list(range(at[0], at[0] + len(at)))


def _over_channels(
    node: ir.Node, ctx: Context, value: Value, axis: int, operands: list[Tensor | None], epsilon: float
) -> None:
    """Float32, or bytes in C4 when every reader rounds."""
    numbers, order, memory = value.form.numbers(axis), value.form.order, value.form.memory
    first = order.index(numbers[0])
    dims = [product(memory[:first]), value.dims[axis], product(memory[first + len(numbers) :])]
    rounding = rounding_after(node.outputs[0])
    inner = value.form.factors[numbers[-1]].constant
    if rounding is not None and (len(numbers) == 1 or (inner is not None and inner % 4 == 0)):
        quant, lane = rounding, numbers[-1]
        made = ctx.builder.new(quant.dtype, dims, Layout.C4)
        grid = {"y_scale": quant.scale, "y_zero_point": quant.zero_point}
        result = replace(value, tensor=made, lane=lane, quant=quant)
    else:
        made, grid = ctx.builder.new(DType.F32, dims), {}
        result = replace(value, tensor=made)
    last, name = 1 if dims[2].constant == 1 else None, _NORMS[node.op_type]
    given = ctx.builder.view(tensor_of(value), dims)
    if last and made.layout is Layout.PLAIN:
        given, made_view = ctx.builder.view(given, dims[:2]), ctx.builder.view(made, dims[:2])
        ctx.builder.emit(name, [given, *operands], [made_view], axis=1, last=1, epsilon=epsilon)
    else:
        ctx.builder.emit(name, [given, *operands], [made], axis=1, epsilon=epsilon, **grid)
    ctx.give(node, result)


def group_normalization(node: ir.Node, ctx: Context) -> None:
    """InstanceNormalization and GroupNormalization of [images, channels, pixels...]."""
    value = ctx.builder.plain(ctx.builder.real(ctx.input(node, 0)))
    channels = value.size(1)
    groups = channels if node.op_type == "InstanceNormalization" else attribute_int(node, "num_groups", 1)
    scale, shift = (array_of(ctx.input(node, index)).astype(np.float32).reshape(-1) for index in (1, 2))
    if scale.size == groups != channels:  # opset 18 has a number a group
        scale, shift = (np.repeat(one, channels // groups) for one in (scale, shift))
    dims = [value.dims[0], value.dims[1], product(value.dims[2:])]
    made = ctx.builder.new(DType.F32, dims)
    operands = [ctx.builder.constant(scale), ctx.builder.constant(shift)]
    given = ctx.builder.view(tensor_of(value), dims)
    epsilon = attribute_float(node, "epsilon", 1e-5)
    ctx.builder.emit("groupnorm", [given, *operands], [made], groups=groups, epsilon=epsilon)
    ctx.give(node, replace(value, tensor=made))


def softmax(node: ir.Node, ctx: Context) -> None:
    """Along one axis, wherever it lies in memory."""
    value = ctx.builder.real(ctx.input(node, 0))
    axis = value.axis(attribute_int(node, "axis", -1))
    if not _channels_in_one(value, axis):
        value = ctx.builder.untangled(value)
    if not value.form.axes[axis]:
        raise Refusal("Softmax of one number")
    numbers, memory = value.form.numbers(axis), value.form.memory
    first = value.form.order.index(numbers[0])
    dims = [product(memory[:first]), value.dims[axis], product(memory[first + len(numbers) :])]
    made = ctx.builder.new(DType.F32, dims)
    name = "softmax" if node.op_type == "Softmax" else "log_softmax"
    ctx.builder.emit(name, [ctx.builder.view(tensor_of(value), dims)], [made], axis=1)
    ctx.give(node, replace(value, tensor=made))


_REDUCE = {
    "ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "max", "ReduceMin": "min", "ReduceProd": "prod", "ReduceL1": "l1",
    "ReduceL2": "l2", "ReduceSumSquare": "sumsquare",
}  # fmt: skip


def reduce(node: ir.Node, ctx: Context) -> None:
    """Over axes; the mean over all pixels of bytes that are rounded right after is a pool."""
    value = ctx.input(node, 0)
    axes = _reduced_axes(node, ctx, value)
    keep = bool(attribute_int(node, "keepdims", 1))
    if not axes:
        ctx.give(node, value)
        return
    form = reduced_form(value.form, axes, keep=keep)
    if node.op_type == "ReduceMean" and (pooled := _mean_of_bytes(node, ctx, value, axes, form)) is not None:
        ctx.give(node, pooled)
        return
    ctx.give(node, reduced(ctx, value, axes, form, _REDUCE[node.op_type]))


def reduced(ctx: Context, value: Value, axes: list[int], form: Form, function: str) -> Value:
    """Over axes of real numbers, whatever their sizes; ``form`` is the result's."""
    value = ctx.builder.real(value)
    dims, gone, kept = _groups(value.form, axes)
    made = ctx.builder.new(value.dtype, kept)
    given = ctx.builder.view(tensor_of(value), dims)
    ctx.builder.emit("reduce", [given], [made], function=function, axes=gone)
    return Value(form, made)


def _reduced_axes(node: ir.Node, ctx: Context, value: Value) -> list[int]:
    given = attribute_ints(node, "axes")
    if given is None and (listed := ctx.optional(node, 1)) is not None:
        given = fixed_sizes(listed)
    if not given:
        return [] if attribute_int(node, "noop_with_empty_axes", 0) else list(range(value.rank))
    return sorted(value.axis(axis) for axis in given)


def reduced_form(form: Form, axes: list[int], *, keep: bool) -> Form:
    """What is left of a form; with ``keep`` as axes of size 1."""
    gone = {number for axis in axes for number in form.numbers(axis)}
    kept = [number for number in range(len(form.factors)) if number not in gone]
    new = {number: index for index, number in enumerate(kept)}
    left = [() if axis in axes else one for axis, one in enumerate(form.axes) if keep or axis not in axes]
    return Form(tuple(left), tuple(new[number] for number in form.order if number in new))


def _groups(form: Form, axes: list[int]) -> tuple[list[Dim], list[int], list[Dim]]:
    """Memory as dims that are reduced and dims that are not, neighbours of a kind together."""
    gone = {number for axis in axes for number in form.numbers(axis)}
    dims: list[Dim] = []
    flags: list[bool] = []
    for number in form.order:
        if flags and flags[-1] == (number in gone):
            dims[-1] = dims[-1] * form.factors[number]
        else:
            dims.append(form.factors[number])
            flags.append(number in gone)
    if not any(flags):  # sizes of 1 only: still one number to reduce
        dims, flags = [*dims, dim(1)], [*flags, True]
    reduced = [index for index, flag in enumerate(flags) if flag]
    return dims, reduced, [one for one, flag in zip(dims, flags, strict=True) if not flag]


def _mean_of_bytes(node: ir.Node, ctx: Context, value: Value, axes: list[int], form: Form) -> Value | None:
    if value.rank != 4 or axes != [2, 3] or value.lane is None or not value.in_bytes or value.quant is None:
        return None
    rounding = rounding_after(node.outputs[0])
    numbers = value.form.numbers(1)
    if rounding is None or not numbers or value.lane != numbers[-1]:
        return None
    sizes = [value.dims[axis].constant for axis in (2, 3)]
    if any(size is None for size in sizes) or (
        value.form.order[: len(numbers)] != numbers and value.form.numbers(0) == ()
    ):
        return None
    if not value.form.is_plain:
        return None
    given = ctx.builder.view(tensor_of(value), value.dims, layout=Layout.C4)
    quant = rounding
    made = ctx.builder.new(quant.dtype, [value.dims[0], value.dims[1], dim(1), dim(1)], Layout.C4)
    grids = {
        f"{key}_{name}": getattr(one, name)
        for key, one in (("x", value.quant), ("y", quant))
        for name in ("scale", "zero_point")
    }
    ctx.builder.emit(
        "pool", [given], [made], function="average", kernel=[size or 1 for size in sizes], strides=[1, 1], dilations=[1, 1],
        pads=[0, 0, 0, 0], include_pad=0, **grids,
    )  # fmt: skip
    return Value(form, made, form.numbers(1)[-1], quant)


def batch_normalization(node: ir.Node, ctx: Context) -> None:
    """A factor and a shift per channel."""
    from edgewise.targets.cpu.native.align import broadcast
    from edgewise.targets.cpu.native.ops.elementwise import _emitted

    if attribute_int(node, "training_mode", 0):
        raise Refusal("BatchNormalization in training")
    value = ctx.builder.real(ctx.input(node, 0))
    scale, shift, mean, variance = (array_of(ctx.input(node, index)).astype(np.float64) for index in range(1, 5))
    factor = scale / np.sqrt(variance + attribute_float(node, "epsilon", 1e-5))
    shape = (1, -1) + (1,) * (value.rank - 2)
    for name, array in (("mul", factor), ("add", shift - mean * factor)):
        found = broadcast(ctx, [value, constant_value(array.astype(np.float32).reshape(shape))])
        value = Value(found.form, _emitted(ctx, found, name, DType.F32))
    ctx.give(node, value)


def argmax(node: ir.Node, ctx: Context) -> None:
    """The index of the largest (or smallest) along an axis."""
    value = ctx.builder.plain(ctx.builder.real(ctx.input(node, 0)))
    axis = value.axis(attribute_int(node, "axis", 0))
    dims = [product(value.dims[:axis]), value.dims[axis], product(value.dims[axis + 1 :])]
    made = ctx.builder.new(DType.S64, [dims[0], dims[2]])
    function = "max" if node.op_type == "ArgMax" else "min"
    last = attribute_int(node, "select_last_index", 0) or None
    ctx.builder.emit("argmax", [ctx.builder.view(tensor_of(value), dims)], [made], axis=1, function=function, last=last)
    kept = [dim(1)] if attribute_int(node, "keepdims", 1) else []
    ctx.give(node, Value(Form.plain([*value.dims[:axis], *kept, *value.dims[axis + 1 :]]), made))
