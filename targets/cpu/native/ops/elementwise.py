"""Functions of one value, and of several with broadcasting."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgewise.targets.cpu.native.activations import Activation, activation_of, tabulated
from edgewise.targets.cpu.native.align import Broadcast, broadcast, like
from edgewise.targets.cpu.native.builder import channel_dims, tensor_of
from edgewise.targets.cpu.native.context import Context, attribute_int, only_reader, rounding_after
from edgewise.targets.cpu.native.form import Form, same_size
from edgewise.targets.cpu.native.ops.movement import sizes_value
from edgewise.targets.cpu.native.plan import Dim, DType, Layout, Tensor, dim, product
from edgewise.targets.cpu.native.value import EDGES, Quant, Refusal, Value, constant_value, dtype_named, numpy_name

if TYPE_CHECKING:
    import onnx_ir as ir

_BINARY = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Pow": "pow", "Max": "max", "Min": "min", "Equal": "equal", "Less": "less",
    "Greater": "greater", "LessOrEqual": "lessequal", "GreaterOrEqual": "greaterequal", "And": "and", "Or": "or", "Xor": "xor", "Mod": "mod", "Sum": "add",
}  # fmt: skip
_COMPARISONS = {"equal", "less", "greater", "lessequal", "greaterequal", "and", "or", "xor"}
_IN_BYTES = {"add", "mul"}


def unary(node: ir.Node, ctx: Context) -> None:
    """A function of each element; of bytes that are rounded again right after, a table."""
    activation = activation_of(node)
    if activation is None:
        raise Refusal("parameters that are computed")
    value = ctx.input(node, 0)
    if value.array is not None:
        raise Refusal("a function of a constant that was not folded")
    rounding = rounding_after(node.outputs[0])
    if value.in_bytes and value.quant is not None and rounding is not None:
        real = tabulated(activation, value.quant.real)
        if real is not None:
            table = rounding.rounded(real)
            ctx.give(node, ctx.builder.looked_up(value, rounding, table))
            return
    ctx.give(node, applied(ctx.builder.real(value), activation, ctx))


def applied(value: Value, activation: Activation, ctx: Context) -> Value:
    """A function of float32 (or of booleans, for ``not``)."""
    given = tensor_of(value)
    made = ctx.builder.new(given.dtype, given.dims)
    ctx.builder.emit(
        "unary", [ctx.builder.view(given, given.dims)], [made], function=activation.name, **activation.parameters
    )
    return replace(value, tensor=made)


def logical_not(node: ir.Node, ctx: Context) -> None:
    """Exclusive or with true."""
    value = ctx.input(node, 0)
    given = tensor_of(value)
    made = ctx.builder.new(DType.BOOL, given.dims)
    truth = ctx.builder.constant(np.ones(1, np.bool_), [dim(1)] * len(given.dims))
    ctx.builder.emit("binary", [given, truth], [made], function="xor")
    ctx.give(node, replace(value, tensor=made))


def binary(node: ir.Node, ctx: Context) -> None:
    """A function of two values (Max, Min and Sum: of any number)."""
    values = [ctx.input(node, index) for index in range(len(node.inputs))]
    name = _BINARY[node.op_type]
    if all(value.sizes is not None for value in values) and name in _ON_SIZES and not attribute_int(node, "fmod", 0):
        ctx.give(node, _on_sizes(name, values))
        return
    if len(values) == 1:
        ctx.give(node, values[0])
        return
    result = values[0]
    for other in values[1:]:
        result = _pair(node, name, result, other, ctx, last=other is values[-1])
    ctx.give(node, result)


_ON_SIZES = {"add", "sub", "mul", "div", "max", "min", "mod"}


def _on_sizes(name: str, values: list[Value]) -> Value:
    """Arithmetic with shapes: done now."""
    lists = [value.sizes or () for value in values]
    count = max(map(len, lists))
    columns = [one * count if len(one) == 1 else one for one in lists]
    made = []
    for row in zip(*columns, strict=True):
        total = row[0]
        for one in row[1:]:
            total = _combined(name, total, one)
        made.append(total)
    return sizes_value(made, scalar=all(value.rank == 0 for value in values))


def _combined(name: str, a: Dim, b: Dim) -> Dim:
    if name == "max":
        return a.maximum(b)
    if name == "min":
        return a.minimum(b)
    if name == "mod":  # of the divisor's sign, as the quotient is rounded down
        return a - a // b * b
    return {"add": a.__add__, "sub": a.__sub__, "mul": a.__mul__, "div": a.__floordiv__}[name](b)


def _pair(node: ir.Node, name: str, a: Value, b: Value, ctx: Context, *, last: bool) -> Value:
    table = _with_constant(node, name, a, b, ctx) if last else None
    if table is not None:
        return table
    if last and name in _IN_BYTES and (in_bytes := _bytes(node, name, a, b, ctx)) is not None:
        return in_bytes
    a, b = (known(ctx.builder.real(value), ctx) for value in (a, b))
    if name == "pow" and a.dtype is DType.F32 and b.dtype in (DType.S64, DType.S32):
        b = as_dtype(b, DType.F32, ctx)
    if a.dtype is not b.dtype:
        raise Refusal(f"{numpy_name(a.dtype)} with {numpy_name(b.dtype)}")
    found = broadcast(ctx, [a, b])
    dtype = DType.BOOL if name in _COMPARISONS else a.dtype
    fmod = 1 if name == "mod" and attribute_int(node, "fmod", 0) else None
    made = _emitted(ctx, found, name, dtype, fmod=fmod)
    return Value(found.form, made)


def known(value: Value, ctx: Context) -> Value:
    """Sizes that depend on the inputs, as a tensor."""
    if value.tensor is not None or value.array is not None or value.sizes is None:
        return value
    tensor = ctx.builder.new(DType.S64, [dim(len(value.sizes))])
    ctx.builder.emit("shape_value", [], [tensor], values=list(value.sizes))
    return replace(value, tensor=tensor, sizes=None)


def _emitted(ctx: Context, found: Broadcast, name: str, dtype: DType, fmod: int | None = None) -> Tensor:
    views = [
        ctx.builder.view(_operand(ctx, value), part, layout=Layout.PLAIN)
        for value, part in zip(found.values, found.parts, strict=True)
    ]
    made = ctx.builder.new(dtype, found.dims)
    ctx.builder.emit("binary", views, [made], function=name, fmod=fmod)
    return made


def _operand(ctx: Context, value: Value) -> Tensor:
    return tensor_of(value)


def _with_constant(node: ir.Node, name: str, a: Value, b: Value, ctx: Context) -> Value | None:
    """Bytes with one number, rounded again right after: a table."""
    value, other = (b, a) if a.array is not None else (a, b)
    rounding = rounding_after(node.outputs[0])
    if rounding is None or not value.in_bytes or value.quant is None or other.array is None or other.array.size != 1:
        return None
    if other.rank > value.rank:
        return None
    real, number = value.quant.real, np.float32(other.array.reshape(-1)[0])
    pair = (number, real) if value is b else (real, number)
    function = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}.get(name)
    if function is None:
        return None
    with np.errstate(all="ignore"):
        made = function(*pair)
    if not np.all(np.isfinite(made)):
        return None
    return ctx.builder.looked_up(value, rounding, rounding.rounded(made))


def _bytes(node: ir.Node, name: str, a: Value, b: Value, ctx: Context) -> Value | None:
    """Add or Mul with at least one C4 value that is as large as the result; past a Relu that the rounding does anyway."""
    leader, other, turned = (a, b, False) if _leads(a, b) else (b, a, True)
    if not _leads(leader, other) or leader.quant is None:
        return None
    dims = list(channel_dims(leader))
    placed = _beside(ctx, leader, other)
    if placed is None:
        return None
    view, grid = placed
    output = node.outputs[0]
    after = only_reader(output)
    relu = after is not None and after.op_type == "Relu" and not after.domain
    quant = rounding_after(after.outputs[0] if relu and after is not None else output)
    if quant is None or (relu and quant.zero_point != quant.levels.min()):
        quant, relu = rounding_after(output), False
    layout = Layout.PLAIN if quant is None else Layout.C4
    made = ctx.builder.new(DType.F32 if quant is None else quant.dtype, dims, layout)
    operands = [ctx.builder.view(tensor_of(leader), dims, layout=Layout.C4), view]
    grids = {"a": leader.quant, "b": grid}
    if turned:
        operands, grids = operands[::-1], {"a": grid, "b": leader.quant}
    ctx.builder.emit("binary", operands, [made], function=name, **_parameters({**grids, "y": quant}))
    value = replace(leader, tensor=made, quant=quant, lane=leader.lane if quant is not None else None)
    ctx.give(node, value)
    if relu and after is not None:
        ctx.done.add(after)
        ctx.values[after.outputs[0]] = value
    return value


def _parameters(grids: dict[str, Quant | None]) -> dict[str, float | int]:
    found: dict[str, float | int] = {}
    for key, grid in grids.items():
        if grid is not None:
            found |= {f"{key}_scale": grid.scale, f"{key}_zero_point": grid.zero_point}
    return found


def _leads(a: Value, b: Value) -> bool:
    """Whether a value lies in C4 and is as large as the result."""
    if a.lane is None or not a.in_bytes or a.rank < b.rank:
        return False
    sizes = zip(a.dims[a.rank - b.rank :], b.dims, strict=True)
    return all(same_size(mine, its) or its.constant == 1 for mine, its in sizes)


def _beside(ctx: Context, leader: Value, other: Value) -> tuple[Tensor, Quant | None] | None:
    """The other operand as [images, channels, pixels]: as large, or one number for each channel."""
    if other.array is not None:
        return None
    if other.dtype is DType.F32:
        other = ctx.builder.real(other)
    elif other.lane is None:
        return None
    placed = like(ctx, other, leader.form)
    if placed is not None and placed.lane == leader.lane if other.lane is not None else placed is not None:
        dims, layout = channel_dims(leader), Layout.PLAIN if other.lane is None else Layout.C4
        return (ctx.builder.view(tensor_of(placed), dims, layout=layout), placed.quant) if placed else None
    return _per_channel(ctx, leader, other)


def _per_channel(ctx: Context, leader: Value, other: Value) -> tuple[Tensor, Quant | None] | None:
    """[images, channels, 1, 1] beside [images, channels, height, width]."""
    numbers = leader.form.numbers(1)
    plain = leader.form.is_plain and other.form.is_plain and leader.rank == other.rank and leader.rank > 2
    if not plain or len(numbers) != 1 or leader.lane != numbers[0] or len(other.form.axes[1]) != 1:
        return None
    if any(other.form.axes[2:]) or not same_size(other.dims[0], leader.dims[0]) or other.dims[1] != leader.dims[1]:
        return None
    if other.lane is not None and other.lane != other.form.numbers(1)[0]:
        return None
    layout = Layout.PLAIN if other.lane is None else Layout.C4
    # Images may count as channels (channel_dims): for both, or for none.
    return ctx.builder.view(tensor_of(other), [*channel_dims(leader)[:2], dim(1)], layout=layout), other.quant


def where(node: ir.Node, ctx: Context) -> None:
    """One of two values, by a third."""
    values = [known(ctx.builder.real(ctx.input(node, index)), ctx) for index in range(3)]
    found = broadcast(ctx, values)
    views = [
        ctx.builder.view(tensor_of(value), part, layout=Layout.PLAIN)
        for value, part in zip(found.values, found.parts, strict=True)
    ]
    made = ctx.builder.new(values[1].dtype, found.dims)
    ctx.builder.emit("where", views, [made])
    ctx.give(node, Value(found.form, made))


def cast(node: ir.Node, ctx: Context) -> None:
    """Another dtype."""
    import onnx_ir as ir

    wanted = dtype_named(str(ir.DataType(attribute_int(node, "to", 1)).numpy().name))
    value = ctx.input(node, 0)
    if wanted in EDGES and not node.outputs[0].is_graph_output():
        raise Refusal(f"dtype {numpy_name(wanted)} inside of the network")
    if value.sizes is not None and wanted in (DType.S64, DType.S32):
        ctx.give(node, value)
        return
    ctx.give(node, as_dtype(ctx.builder.real(known(value, ctx)), wanted, ctx))


def as_dtype(value: Value, wanted: DType, ctx: Context) -> Value:
    """A real value's elements in another dtype."""
    if value.array is not None:
        return constant_value(value.array.astype(numpy_name(wanted)))
    if value.dtype is wanted:
        return value
    given = tensor_of(value)
    made = ctx.builder.converted("cast", given, wanted, given.dims, Layout.PLAIN)
    return replace(value, tensor=made, sizes=None)


def shape(node: ir.Node, ctx: Context) -> None:
    """The dims of a value: known now, or expressions of the inputs'."""
    value = ctx.input(node, 0)
    start, end = attribute_int(node, "start", 0), attribute_int(node, "end", value.rank)
    ctx.give(node, sizes_value(value.dims[slice(start, end)]))


def size(node: ir.Node, ctx: Context) -> None:
    """How many elements."""
    ctx.give(node, sizes_value([product(ctx.input(node, 0).dims)], scalar=True))


def expand(node: ir.Node, ctx: Context) -> None:
    """Repeat along axes of size 1."""
    value, wanted = ctx.input(node, 0), ctx.input(node, 1).sizes
    if wanted is None:
        raise Refusal("a shape that is not known from the inputs' shapes")
    value = ctx.builder.real(value)
    rank = max(value.rank, len(wanted))
    own = [dim(1)] * (rank - value.rank) + list(value.dims)
    asked = [dim(1)] * (rank - len(wanted)) + list(wanted)
    dims = [mine if other.constant == 1 else other for mine, other in zip(own, asked, strict=True)]
    source = ctx.builder.plain(value)
    given = ctx.builder.view(tensor_of(source), own)
    made = ctx.builder.converted("expand", given, given.dtype, dims, Layout.PLAIN)
    ctx.give(node, Value(Form.plain(dims), made))


def identity(node: ir.Node, ctx: Context) -> None:
    """The value itself."""
    ctx.give(node, ctx.input(node, 0))


def dropout(node: ir.Node, ctx: Context) -> None:
    """The value itself: nothing is dropped outside of training."""
    training = ctx.optional(node, 2)
    if training is not None and (training.array is None or training.array.any()):
        raise Refusal("Dropout in training")
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        raise Refusal("Dropout whose mask is used")
    identity(node, ctx)
