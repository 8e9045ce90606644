"""Whole attention: scores, scale, mask, softmax, values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgewise.targets.cpu.native.attention import Attention
from edgewise.targets.cpu.native.builder import tensor_of
from edgewise.targets.cpu.native.context import Context, rounding_after
from edgewise.targets.cpu.native.form import Form
from edgewise.targets.cpu.native.plan import Attribute, Dim, DType, Layout, Tensor, dim, product
from edgewise.targets.cpu.native.value import Quant, Refusal, Value

if TYPE_CHECKING:
    import onnx_ir as ir


def attention(node: ir.Node, ctx: Context, match: Attention) -> None:
    """Lower a subgraph that ``attention.find`` recognised; ``node`` is its last."""
    query = ctx.get(match.query)
    key = ctx.get(match.key)
    value = ctx.get(match.value)
    rank = query.rank
    if rank not in (3, 4) or key.rank != rank or value.rank != rank:
        raise Refusal(f"attention of {rank} axes")
    turned = match.turned
    parts = {
        "q": (query, rank - 2, rank - 1),
        "k": (key, rank - 1, rank - 2),
        "v": (value, rank - 1, rank - 2) if turned else (value, rank - 2, rank - 1),
    }
    rounding = rounding_after(node.outputs[0])
    integer = match.weights_quant is not None and all(
        one.quant is not None and one.quant.dtype is DType.U8 and _whole_words(one, width)
        for one, _, width in parts.values()
    )
    heads = query.dims[1] if rank == 4 else dim(1)
    if heads.constant is None:
        raise Refusal("attention with heads that depend on the inputs")
    tensors, attributes = _operands(ctx, parts, integer=integer)
    mask = _mask(ctx, match, rank)
    if match.constant_mask is not None:
        attributes["mask_transposed"] = 1
    width = value.dims[parts["v"][2]]
    dims = [query.dims[0], heads * width, query.dims[rank - 2]]
    quant = (
        rounding
        if rounding is not None and integer and width.constant is not None and width.constant % 4 == 0
        else None
    )
    made = ctx.builder.new(quant.dtype if quant else DType.F32, dims, Layout.C4 if quant else Layout.PLAIN)
    if quant is not None:
        attributes |= {"y_scale": quant.scale, "y_zero_point": quant.zero_point}
    if (steps := match.weights_quant) is not None:
        attributes |= {
            "p_scale": steps.scale,
            "p_zero_point": steps.zero_point,
            "p_signed": int(steps.dtype is DType.S8),
        }
    ctx.builder.emit("attention", [*tensors, mask], [made], heads=heads.constant, scale=match.scale, **attributes)
    ctx.give(node, _result(made, rank, dims, heads, width, turned=turned, quant=quant))
    pairs = [query.dims[0], heads, query.dims[rank - 2], key.dims[rank - 1]]
    ctx.macs[ctx.builder.name] = product([*pairs, query.dims[rank - 1] + width])


def _whole_words(value: Value, axis: int) -> bool:
    size = value.dims[axis].constant
    return size is not None and size % 4 == 0


def _operands(
    ctx: Context, parts: dict[str, tuple[Value, int, int]], *, integer: bool
) -> tuple[list[Tensor], dict[str, Attribute]]:
    """Each as [images, heads · width, tokens]."""
    tensors: list[Tensor] = []
    attributes: dict[str, Attribute] = {}
    for name, (given, tokens, width) in parts.items():
        value = given if integer else ctx.builder.real(given)
        form = value.form
        images = form.numbers(0)
        heads = form.numbers(1) if value.rank == 4 else ()
        order = [*images, *heads, *form.numbers(width), *form.numbers(tokens)]
        value = ctx.builder.ordered(value, order)
        if integer and value.quant is not None:
            attributes |= {f"{name}_scale": value.quant.scale, f"{name}_zero_point": value.quant.zero_point}
            value = ctx.builder.in_words(value, [1, width] if heads else [width])
            heads = value.form.numbers(1) if value.rank == 4 else ()
            value = ctx.builder.packed(value, [*heads, *value.form.numbers(width)])
        channels = value.dims[width] * (value.dims[1] if value.rank == 4 else dim(1))
        dims = [value.dims[0], channels, value.dims[tokens]]
        tensors.append(ctx.builder.view(tensor_of(value), dims, layout=Layout.C4 if integer else Layout.PLAIN))
    return tensors, attributes


def _result(
    made: Tensor, rank: int, dims: list[Dim], heads: Dim, width: Dim, *, turned: bool, quant: Quant | None
) -> Value:
    """In ONNX's axes; in memory images, heads, width, tokens."""
    axes = [dims[0], heads, width, dims[2]] if rank == 4 else [dims[0], width, dims[2]]
    form = Form.plain(axes)
    if not turned:
        form = form.transposed([*range(rank - 2), rank - 1, rank - 2])
    lane = None
    if quant is not None:
        own = form.numbers(rank - 2 if turned else rank - 1)
        lane = own[-1] if own else None
    return Value(form, made, lane, quant)


def _mask(ctx: Context, match: Attention, rank: int) -> Tensor | None:
    """What is added to the scores, as [images, heads, queries, keys] with 1 where it is repeated; a constant [.., keys, queries]."""
    if match.constant_mask is not None:
        array = np.asarray(match.constant_mask, np.float32)
        array = array.reshape((1,) * (rank - array.ndim) + array.shape)
        array = array[:, None] if rank == 3 else array
        return ctx.builder.constant(np.ascontiguousarray(array.swapaxes(2, 3)))
    if match.mask is None:
        return None
    value = ctx.builder.plain(ctx.builder.real(ctx.get(match.mask)))
    if value.rank > rank:
        raise Refusal("a mask with more axes than the scores")
    dims = [dim(1)] * (rank - value.rank) + list(value.dims)
    if rank == 3:
        dims.insert(1, dim(1))
    return ctx.builder.view(tensor_of(value), dims)
