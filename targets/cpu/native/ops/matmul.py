"""Products of two computed values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgewise.targets.cpu.native.builder import tensor_of
from edgewise.targets.cpu.native.context import Context
from edgewise.targets.cpu.native.form import Form, same_size
from edgewise.targets.cpu.native.plan import Dim, Tensor, dim
from edgewise.targets.cpu.native.value import Refusal, Value

if TYPE_CHECKING:
    import onnx_ir as ir

_MAX_RANK = 8


def product_of_values(node: ir.Node, ctx: Context, left: Value, right: Value) -> None:
    """``matmul`` on float32; an operand that lies the other way round in memory is read transposed."""
    if min(left.rank, right.rank) < 2:
        raise Refusal("a product with a vector")
    rank = max(left.rank, right.rank)
    if rank > _MAX_RANK:
        raise Refusal(f"a product of {rank} axes")
    if not same_size(left.dims[-1], right.dims[-2]):
        raise Refusal("matrices that do not fit together")
    (a, turn_a), (b, turn_b) = (_matrix(ctx, ctx.builder.real(value)) for value in (left, right))
    batch = _batch(left.dims[:-2], right.dims[:-2])
    dims = [*batch, left.dims[-2], right.dims[-1]]
    made = ctx.builder.new(a.dtype, dims)
    ctx.builder.emit("matmul", [a, b], [made], transpose_a=int(turn_a), transpose_b=int(turn_b), alpha=1.0)
    ctx.give(node, Value(Form.plain(dims), made))


def _matrix(ctx: Context, value: Value) -> tuple[Tensor, bool]:
    """A tensor of the value's dims, or with the last two exchanged when it lies like that."""
    rows, columns = value.form.numbers(value.rank - 2), value.form.numbers(value.rank - 1)
    outer = [number for axis in range(value.rank - 2) for number in value.form.numbers(axis)]
    turned = value.array is None and value.form.order == (*outer, *columns, *rows) and bool(rows) and bool(columns)
    value = value if turned else ctx.builder.plain(value)
    dims = list(value.dims)
    if turned:
        dims[-2:] = dims[:-3:-1]
    return ctx.builder.view(tensor_of(value), dims), turned


def _batch(a: tuple[Dim, ...], b: tuple[Dim, ...]) -> list[Dim]:
    rank = max(len(a), len(b))
    left, right = ([dim(1)] * (rank - len(one)) + list(one) for one in (a, b))
    return [one if one.constant != 1 else other for one, other in zip(left, right, strict=True)]
