"""Two values side by side: the same factors, in the same order in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgewise.targets.cpu.native.builder import lane_in
from edgewise.targets.cpu.native.form import Axis, Form, common_factors, same_size
from edgewise.targets.cpu.native.plan import Dim, dim
from edgewise.targets.cpu.native.value import Refusal, Value

if TYPE_CHECKING:
    from edgewise.targets.cpu.native.context import Context


def like(ctx: Context, value: Value, form: Form) -> Value | None:
    """A value of the same dims as a form, in the form's order in memory; None when the dims differ or it is a constant."""
    if value.array is not None or value.tensor is None or value.rank != len(form.axes):
        return None
    if not all(same_size(a, b) for a, b in zip(value.dims, form.dims, strict=True)):
        return None
    parts = [common_factors(a, b) for a, b in zip(value.form.axes, form.axes, strict=True)]
    if any(part is None for part in parts):
        return None
    whole = [part for part in parts if part is not None]
    refined = with_factors(ctx, value, whole)
    wanted = refine(form, whole)
    if refined is None or wanted is None:
        return None
    return ctx.builder.ordered(refined, wanted.order)


def refine(form: Form, axes: Sequence[Axis]) -> Form | None:
    """A form with its axes taken apart into these factors."""
    flat = form.reshaped([factor for axis in axes for factor in axis])
    return None if flat is None else Form(tuple(axes), flat.order)


def with_factors(ctx: Context, value: Value, axes: Sequence[Axis]) -> Value | None:
    """A value with its axes taken apart into these factors; None when the lane's four channels would be taken apart."""
    form = refine(value.form, axes)
    if form is None or value.lane is None:
        return None if form is None else value.with_form(form)
    lane = lane_in(value, form)
    return None if lane is None else value.with_form(form, lane)


@dataclass(frozen=True)
class Broadcast:
    """Operands that an elementwise operator can walk through together.

    Attributes:
        form: of the result.
        values: the operands, each in the result's order in memory.
        dims: of the result as the operator sees it.
        parts: for each operand its dims, 1 where it is repeated.
    """

    form: Form
    values: list[Value]
    dims: list[Dim]
    parts: list[list[Dim]]


def broadcast(ctx: Context, values: Sequence[Value]) -> Broadcast:
    """Bring operands into one order in memory, by numpy's rules for their shapes."""
    rank = max(value.rank for value in values)
    try_values = [_widened(ctx, value, rank) for value in values]
    axes = _common(try_values)
    if axes is None:
        try_values = [_merged(ctx, value) for value in try_values]
        axes = _common(try_values)
    if axes is None:
        raise Refusal("shapes that do not fit together")
    refined = [_refined(ctx, value, axes) for value in try_values]
    order = _order(refined, axes)
    form = Form(tuple(axes), order)
    placed = [_placed(ctx, value, form) for value in refined]
    dims, parts = _dims(form, placed)
    return Broadcast(form, placed, dims, parts)


def _widened(ctx: Context, value: Value, rank: int) -> Value:
    missing = rank - value.rank
    if not missing:
        return value
    if value.array is not None:
        return replace(
            value, array=value.array.reshape((1,) * missing + value.array.shape), form=_wide(value.form, missing)
        )
    return replace(value, form=_wide(value.form, missing))


def _wide(form: Form, missing: int) -> Form:
    return Form(((),) * missing + form.axes, form.order)


def _merged(ctx: Context, value: Value) -> Value:
    return ctx.builder.untangled(value)


def _common(values: Sequence[Value]) -> list[Axis] | None:
    axes: list[Axis] = []
    for axis in range(values[0].rank):
        found: Axis | None = ()
        for value in values:
            one = value.form.axes[axis]
            if one and found:
                found = common_factors(found, one)
            elif one:
                found = one
            if found is None:
                return None
        axes.append(found or ())
    return axes


def _refined(ctx: Context, value: Value, axes: Sequence[Axis]) -> Value:
    own = [whole if one else () for whole, one in zip(axes, value.form.axes, strict=True)]
    if value.array is not None:
        form = refine(value.form, own)
        if form is None:
            raise Refusal("a constant of another shape")
        return replace(value, form=form)
    found = with_factors(ctx, value, own)
    if found is None:
        found = with_factors(ctx, ctx.builder.untangled(value), own)
    if found is None:
        raise Refusal("shapes that do not fit together")
    return found


def _order(values: Sequence[Value], axes: Sequence[Axis]) -> tuple[int, ...]:
    """The order in memory of the operand that is as large as the result (a computed one before a constant), else ONNX's."""
    count = sum(map(len, axes))
    for value in sorted(values, key=lambda one: one.array is not None):
        if len(value.form.factors) == count and value.array is None:
            return value.form.order
    return tuple(range(count))


def _numbers(form: Form, own: Form) -> dict[int, int]:
    """For each of a value's factors which one of the result's it is."""
    found, number = {}, 0
    start = 0
    for whole, part in zip(form.axes, own.axes, strict=True):
        for index in range(len(part)):
            found[number] = start + index
            number += 1
        start += len(whole)
    return found


def _placed(ctx: Context, value: Value, form: Form) -> Value:
    numbers = _numbers(form, value.form)
    back = {whole: own for own, whole in numbers.items()}
    order = [back[number] for number in form.order if number in back]
    return ctx.builder.ordered(value, order)


def _dims(form: Form, values: Sequence[Value]) -> tuple[list[Dim], list[list[Dim]]]:
    """Factors that all operands treat alike are one dim."""
    has = [set(_numbers(form, value.form).values()) for value in values]
    dims: list[Dim] = []
    parts: list[list[Dim]] = [[] for _ in values]
    previous: list[bool] | None = None
    for number in form.order:
        present = [number in one for one in has]
        size = form.factors[number]
        if present == previous:
            dims[-1] = dims[-1] * size
            for part, here in zip(parts, present, strict=True):
                if here:
                    part[-1] = part[-1] * size
        else:
            dims.append(size)
            for part, here in zip(parts, present, strict=True):
                part.append(size if here else dim(1))
        previous = present
    return dims, parts
