"""Along one axis: sums so far, and the largest with their places."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgewise.targets.cpu.native.builder import tensor_of
from edgewise.targets.cpu.native.context import Context, attribute_int
from edgewise.targets.cpu.native.form import Form
from edgewise.targets.cpu.native.ops.elementwise import known
from edgewise.targets.cpu.native.ops.movement import fixed_sizes
from edgewise.targets.cpu.native.plan import DType, dim
from edgewise.targets.cpu.native.value import Refusal, Value

if TYPE_CHECKING:
    import onnx_ir as ir


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
    """Whole numbers from one on, with a step; bounds that follow from the inputs' shapes."""
    start, limit, step = (ctx.input(node, index).sizes for index in range(3))
    if start is None or limit is None or step is None or step[0].constant in (None, 0):
        raise Refusal("bounds that are not known from the inputs' shapes")
    by = int(step[0].constant or 1)
    count = (limit[0] - start[0] if by > 0 else start[0] - limit[0]).ceildiv(abs(by)).maximum(0)
    steps = ctx.builder.new(DType.S64, [count])
    ctx.builder.emit("expand", [ctx.builder.constant(np.full(1, by, np.int64))], [steps])
    sums = ctx.builder.new(DType.S64, [count])
    ctx.builder.emit("cumsum", [steps], [sums], axis=0, exclusive=1, reverse=0)
    first = ctx.builder.new(DType.S64, [dim(1)])
    ctx.builder.emit("shape_value", [], [first], values=[start[0]])
    made = ctx.builder.new(DType.S64, [count])
    ctx.builder.emit("binary", [sums, first], [made], function="add")
    ctx.give(node, Value(Form.plain([count]), made))
