"""A direction of an LSTM, GRU or RNN, over as many steps as there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgewise.targets.cpu.native.builder import array_of, tensor_of
from edgewise.targets.cpu.native.context import Context, attribute_float, attribute_int, attribute_text
from edgewise.targets.cpu.native.form import Form
from edgewise.targets.cpu.native.plan import DType, Tensor, product
from edgewise.targets.cpu.native.value import Value

if TYPE_CHECKING:
    import onnx_ir as ir

_SLOTS = 7
_GATES = {"lstm": 4, "gru": 3, "rnn": 1}
_FLAGS = ("reverse", "after_reset", "input_forget")


def recurrent(node: ir.Node, ctx: Context) -> None:
    """``Recurrent`` as ``written/recurrent.py`` makes it: (x, weights, after, peepholes, lengths, h, c) to (y, last h, last c)."""
    values = [ctx.optional(node, index) for index in range(_SLOTS)]
    x, weights = (ctx.input(node, index) for index in range(2))
    steps, batch, _ = x.dims
    hidden, kind = weights.dims[1], attribute_text(node, "kind", "")
    state = [batch, hidden]
    ctx.macs[ctx.builder.name] = product([steps, batch, hidden, hidden]) * _GATES[kind]
    made = [ctx.builder.new(DType.F32, [steps, *state]), *(ctx.builder.new(DType.F32, state) for _ in node.outputs[1:])]
    ctx.builder.emit(
        "recurrent",
        [None if value is None else _tensor(ctx, value) for value in values],
        made,
        kind=kind,
        clip=attribute_float(node, "clip", 0.0),
        **{name: attribute_int(node, name, 0) for name in _FLAGS},
        **{name: attribute_text(node, name, "") for name in "fgh"},
    )
    for index, tensor in enumerate(made):
        ctx.give(node, Value(Form.plain(tensor.dims), tensor), index)


def _tensor(ctx: Context, value: Value) -> Tensor:
    if value.array is not None:
        return ctx.builder.constant(array_of(value), value.dims)
    value = ctx.builder.plain(ctx.builder.real(value))
    return ctx.builder.view(tensor_of(value), value.dims)
