"""Along one axis: sums so far, and the largest with their places."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgewise.targets.cpu.native.builder import tensor_of
from edgewise.targets.cpu.native.context import Context, attribute_int, is_op
from edgewise.targets.cpu.native.form import Form
from edgewise.targets.cpu.native.ops.elementwise import as_dtype, known
from edgewise.targets.cpu.native.ops.movement import fixed_sizes
from edgewise.targets.cpu.native.plan import Dim, DType, dim
from edgewise.targets.cpu.native.value import Refusal, Value

if TYPE_CHECKING:
    import onnx_ir as ir

_EXACT = 1 << 24  # up to here every whole number is a float32


def cumsum(node: ir.Node, ctx: Context) -> None:
    """CumSum along an axis that is known."""
    value = ctx.builder.plain(ctx.builder.real(known(ctx.input(node, 0), ctx)))
    axis = value.axis(fixed_sizes(ctx.input(node, 1))[0])
    made = ctx.builder.new(value.dtype, value.dims)
    flags = {name: attribute_int(node, name, 0) for name in ("exclusive", "reverse")}
    ctx.builder.emit("cumsum", [ctx.builder.view(tensor_of(value), value.dims)], [made], axis=axis, **flags)
    ctx.give(node, Value(Form.plain(value.dims), made))


def topk(node: ir.Node, ctx: Context) -> None:
    """TopK, in order whether asked for or not; of equal ones the first."""
    value = ctx.builder.plain(ctx.builder.real(ctx.input(node, 0)))
    wanted = ctx.input(node, 1).sizes
    if wanted is None:
        raise Refusal("a count that is not known from the inputs' shapes")
    axis = value.axis(attribute_int(node, "axis", -1))
    dims = [*value.dims[:axis], wanted[0], *value.dims[axis + 1 :]]
    made = [ctx.builder.new(value.dtype, dims), ctx.builder.new(DType.S64, dims)]
    largest = attribute_int(node, "largest", 1)
    ctx.builder.emit("topk", [ctx.builder.view(tensor_of(value), value.dims)], made, axis=axis, largest=largest)
    for index, tensor in enumerate(made):
        if index < len(node.outputs):
            ctx.give(node, Value(Form.plain(dims), tensor), index)


def range_(node: ir.Node, ctx: Context) -> None:
    """Whole numbers from one on, with a step; bounds that follow from the inputs' shapes, also as float32."""
    start, limit, step = (_whole(node, index, ctx) for index in range(3))
    if start is None or limit is None or step is None or step.constant in (None, 0):
        raise Refusal("bounds that are not known from the inputs' shapes")
    by = int(step.constant or 1)
    count = limit  # from 0 by 1 as many as a size says; where that is below 0 the engine refuses the shapes
    if start.constant != 0 or by != 1:
        count = (limit - start if by > 0 else start - limit).ceildiv(abs(by)).maximum(0)
    steps = ctx.builder.new(DType.S64, [count])
    ctx.builder.emit("expand", [ctx.builder.constant(np.full(1, by, np.int64))], [steps])
    sums = ctx.builder.new(DType.S64, [count])
    ctx.builder.emit("cumsum", [steps], [sums], axis=0, exclusive=1, reverse=0)
    first = ctx.builder.new(DType.S64, [dim(1)])
    ctx.builder.emit("shape_value", [], [first], values=[start])
    made = ctx.builder.new(DType.S64, [count])
    ctx.builder.emit("binary", [sums, first], [made], function="add")
    numbers = Value(Form.plain([count]), made)
    ctx.give(node, as_dtype(numbers, DType.F32, ctx) if ctx.input(node, 0).dtype is DType.F32 else numbers)


def _whole(node: ir.Node, index: int, ctx: Context) -> Dim | None:
    """A bound as a whole number: a size, a size that was made float32, or a constant without a fraction; None for others."""
    value, given = ctx.input(node, index), node.inputs[index]
    if value.array is not None and value.array.dtype.kind == "f":
        number = float(value.array.reshape(-1)[0])
        return dim(int(number)) if number.is_integer() and abs(number) < _EXACT else None
    maker = None if given is None else given.producer()
    if value.sizes is None and maker is not None and is_op(maker, "Cast") and ctx.known(maker.inputs[0]):
        value = ctx.get(maker.inputs[0])
    return None if value.sizes is None else value.sizes[0]
