"""A state that each step multiplies and adds to, over all steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgewise.targets.cpu.native.builder import tensor_of
from edgewise.targets.cpu.native.context import Context, attribute_int, attribute_text
from edgewise.targets.cpu.native.form import Form
from edgewise.targets.cpu.native.plan import Dim, DType, Tensor, dim
from edgewise.targets.cpu.native.value import Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import onnx_ir as ir

_START, _WEIGHTS, _SLOTS, _LEAST_RANK = 4, 5, 7, 3


def recurrence(node: ir.Node, ctx: Context) -> None:
    """``Recurrence`` as ``recurrence/chains.py`` makes it: (a, b, start), or with a readout (a, b, a2, b2, start, c, u)."""
    listed = [ctx.optional(node, index) for index in range(_SLOTS)]
    values = listed if listed[_WEIGHTS] is not None else [*listed[:2], None, None, listed[2]]
    plain = [None if value is None else ctx.builder.plain(ctx.builder.real(value)) for value in values]
    operands = [value for index, value in enumerate(plain) if value is not None and index != _START]
    rank = max(value.rank for value in operands)
    steps = dim(attribute_int(node, "steps", 0))
    state = [_common(value.dims[axis] for value in operands) for axis in range(1, rank)]
    sums = len(plain) > _WEIGHTS
    results = [steps, *state[:-2], dim(1), state[-1]] if sums else [steps, *state]
    tensors = [None if value is None else _tensor(ctx, value, index == _START) for index, value in enumerate(plain)]
    made = [ctx.builder.new(DType.F32, results)]
    given = [ctx.builder.view(made[0], _widened(results, start=False))]
    if len(node.outputs) > 1:
        made.append(ctx.builder.new(DType.F32, state))
        given.append(ctx.builder.view(made[1], _widened(state, start=True)))
    ctx.builder.emit("recurrence", tensors, given, function=attribute_text(node, "function", "add"))
    for index, tensor in enumerate(made):
        ctx.give(node, Value(Form.plain(tensor.dims), tensor), index)


def _tensor(ctx: Context, value: Value, start: bool) -> Tensor:
    dims = _widened(value.dims, start=start)
    if value.array is not None:
        return ctx.builder.constant(value.array, dims)
    return ctx.builder.view(tensor_of(value), dims)


def _widened(dims: Sequence[Dim], *, start: bool) -> list[Dim]:
    """As the operator wants them, of three axes or more: [steps, keys, lanes] where the state has the lanes alone."""
    missing = max(_LEAST_RANK - len(dims) - start, 0)
    return [*([] if start else dims[:1]), *[dim(1)] * missing, *(dims if start else dims[1:])]


def _common(sizes: Iterable[Dim]) -> Dim:
    found = dim(1)
    for size in sizes:
        found = found if found.constant != 1 else size
    return found
