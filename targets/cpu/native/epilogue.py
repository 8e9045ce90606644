"""What follows a layer and is computed with it: constants into weights, an activation, a residual addition, the rounding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgewise.targets.cpu.native.activations import FUSED, Activation, activation_of
from edgewise.targets.cpu.native.align import like
from edgewise.targets.cpu.native.context import (
    Context,
    constant_array,
    is_op,
    only_reader,
    quant_of,
    rounding_after,
)
from edgewise.targets.cpu.native.form import same_size
from edgewise.targets.cpu.native.ops.movement import view_of
from edgewise.targets.cpu.native.plan import Attribute, Dim, DType, product
from edgewise.targets.cpu.native.value import Quant, Value

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Rounding:
    """To multiples of ``scale``: at least ``low``, at most ``high`` of them."""

    scale: float
    low: int
    high: int


@dataclass
class Epilogue:
    """What a layer computes after its sums.

    Attributes:
        last: the value of the network that it gives.
        made: how that lies in memory (no tensor yet); with the lane that it would have as bytes.
        scale: of each output channel; float64 [channels].
        shift: added to each output channel; float64 [channels].
        activation: after these.
        factor: of each output channel behind the activation; float64 [channels].
        residual: added, in the layer's own order in memory.
        residual_first: before the activation.
        gated: the residual is a factor instead.
        inner: the layer's own rounding before the residual.
        quant: the grid that the output is rounded to.
        before: how many images there are before the channels in memory.
        taken: nodes that need not be lowered any more.
        parted: its outputs were computed by several layers.
    """

    last: ir.Value
    made: Value
    scale: np.ndarray
    shift: np.ndarray
    before: Dim
    activation: Activation | None = None
    factor: np.ndarray | None = None
    residual: Value | None = None
    residual_first: bool = False
    gated: bool = False
    inner: Rounding | None = None
    quant: Quant | None = None
    taken: list[ir.Node] = field(default_factory=list)
    parted: bool = False

    def attributes(self) -> dict[str, Attribute | None]:
        """Those of ``conv`` and ``depthwise``."""
        found: dict[str, Attribute | None] = {}
        if self.activation is not None:
            found["activation"] = self.activation.name
            found |= {f"activation_{key}": value for key, value in self.activation.parameters.items()}
        if self.residual is not None and self.residual_first and self.activation is not None:
            found["residual_first"] = 1
        if self.gated:
            found["gated"] = 1
        if self.residual is not None and self.residual.quant is not None:
            found["residual_scale"] = self.residual.quant.scale
            found["residual_zero_point"] = self.residual.quant.zero_point
        if self.inner is not None:
            found |= {"inner_scale": self.inner.scale, "inner_low": self.inner.low, "inner_high": self.inner.high}
        if self.quant is not None:
            found |= {"y_scale": self.quant.scale, "y_zero_point": self.quant.zero_point}
        return found


def follow(
    ctx: Context, value: ir.Value, made: Value, before: Dim, channels: int, *, integer: bool, views: bool = True
) -> Epilogue:
    """Collect what may be computed with the layer that makes ``value``.

    Args:
        ctx: the network.
        value: the layer's output.
        made: how that will lie in memory; with the lane that it would have as bytes.
        before: how many images lie before the channels in memory.
        channels: how many of these there are.
        integer: the layer may give bytes.
        views: operators that see the same memory in another form may be among them.
    """
    found = Epilogue(value, made, np.ones(channels), np.zeros(channels), before)
    # In float32 a gate costs as much at the end of a layer as in a pass of its own (measured).
    steps = [
        _affine,
        _activation,
        _factor,
        _residual,
        *([_gate, _rounded_residual] if integer else []),
        *([_view] if views else []),
    ]
    while (node := only_reader(found.last)) is not None and node not in ctx.done:
        if not any(step(found, node, ctx) for step in steps):
            break
    if integer and (rounding := rounding_after(found.last)) is not None:
        found.quant = rounding
    return found


def finish(ctx: Context, found: Epilogue, made: Value) -> None:
    """Bind what the layer gives, and strike the nodes that it took along."""
    ctx.done.update(found.taken)
    ctx.values[found.last] = made


def _take(found: Epilogue, *nodes: ir.Node) -> bool:
    found.taken.extend(nodes)
    found.last = nodes[-1].outputs[0]
    return True


def _view(found: Epilogue, node: ir.Node, ctx: Context) -> bool:
    """Another form of the same memory."""
    moved = view_of(node, found.made, ctx)
    if moved is None or (found.made.lane is not None and moved.lane is None):
        return False
    found.made = moved
    return _take(found, node)


def _affine(found: Epilogue, node: ir.Node, ctx: Context) -> bool:
    """A constant per channel (or one for all), added or multiplied: into bias and weights."""
    if not is_op(node, "Add", "Sub", "Mul", "Div") or found.activation is not None:
        return False
    if found.residual is not None and not (found.gated and is_op(node, "Mul", "Div")):
        return False
    constant = _constant(found, node, ctx)
    if constant is None:
        return False
    if is_op(node, "Mul", "Div"):
        found.scale, found.shift = found.scale * constant, found.shift * constant
    elif is_op(node, "Add"):
        found.shift = found.shift + constant
    else:  # x − c or c − x
        sign = 1 if node.inputs[0] is found.last else -1
        found.scale, found.shift = sign * found.scale, sign * (found.shift - constant)
    return _take(found, node)


def _constant(found: Epilogue, node: ir.Node, ctx: Context) -> np.ndarray | None:
    """What a node takes beside the value, if that is a constant per channel; of a division by it the inverse."""
    index = 0 if node.inputs[0] is found.last else 1
    other = node.inputs[1 - index]
    array = None if other is None else _per_channel(ctx, other, found)
    if array is None or not is_op(node, "Div"):
        return array
    return 1 / array if index == 0 else None


def _per_channel(ctx: Context, value: ir.Value, found: Epilogue) -> np.ndarray | None:
    """A constant with a number for each channel (or one for all) of the value as it is seen now; float64 [channels]."""
    array = constant_array(value)
    if array is None and value in ctx.values:
        array = ctx.values[value].array
    rank, channels = found.made.rank, len(found.scale)
    if array is None or array.dtype != np.float32 or array.ndim > rank:
        return None
    if array.size == 1:
        return np.full(channels, float(array.reshape(-1)[0]))
    axis = channel_axis(found)
    if axis is None or array.size != channels:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    return array.reshape(-1).astype(np.float64) if shape[axis] == channels else None


def channel_axis(found: Epilogue) -> int | None:
    """Which axis is the layer's channels and nothing else, past the views so far."""
    form, at = found.made.form, 0
    while at < len(form.order) and not same_size(product(form.memory[:at]), found.before):
        at += 1
    for axis in range(len(form.axes)):
        numbers = form.numbers(axis)
        if numbers == form.order[at : at + len(numbers)] and form.dims[axis].constant == len(found.scale):
            return axis
    return None


def _activation(found: Epilogue, node: ir.Node, ctx: Context) -> bool:
    activation = activation_of(node)
    if activation is None or activation.name not in FUSED or node.inputs[0] is not found.last:
        return False
    if found.activation is not None or found.gated or (found.residual is not None and found.residual.quant is not None):
        return False
    found.activation, found.residual_first = activation, found.residual is not None
    return _take(found, node)


def _factor(found: Epilogue, node: ir.Node, ctx: Context) -> bool:
    """A constant per channel behind the activation, as balanced channels have it. Bounds are left alone: they are done on bytes."""
    if not is_op(node, "Mul", "Div") or found.activation is None or found.activation.clip is not None:
        return False
    if found.residual is not None and not (found.residual_first or found.gated):
        return False
    constant = _constant(found, node, ctx)
    if constant is None:
        return False
    found.factor = constant if found.factor is None else found.factor * constant
    return _take(found, node)


def _residual(found: Epilogue, node: ir.Node, ctx: Context) -> bool:
    return is_op(node, "Add") and _with_other(found, node, ctx)


def _gate(found: Epilogue, node: ir.Node, ctx: Context) -> bool:
    """What another layer made is a factor (GLU, SwiGLU)."""
    if not is_op(node, "Mul") or not _with_other(found, node, ctx):
        return False
    found.gated = True
    return True


def _with_other(found: Epilogue, node: ir.Node, ctx: Context) -> bool:
    if found.residual is not None:
        return False
    other = _other(node, found.last, ctx)
    aligned = None if other is None else like(ctx, other, found.made.form)
    if aligned is None or not aligned.is_float:
        return False
    found.residual = aligned
    return _take(found, node)


def _other(node: ir.Node, value: ir.Value, ctx: Context) -> Value | None:
    """The other operand of an addition or product, when it is computed already."""
    other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
    if other is value or other is None or not ctx.known(other):
        return None
    return ctx.get(other)


def _rounded_residual(found: Epilogue, node: ir.Node, ctx: Context) -> bool:
    """Layer, rounding, addition, rounding; past a Relu that the second rounding does anyway."""
    back = only_reader(node.outputs[0]) if is_op(node, "QuantizeLinear") else None
    addition = only_reader(back.outputs[0]) if back is not None and is_op(back, "DequantizeLinear") else None
    if back is None or addition is None or not is_op(addition, "Add") or found.residual is not None:
        return False
    other = _other(addition, back.outputs[0], ctx)
    chain = [node, back, addition]
    after = only_reader(addition.outputs[0])
    relu = after is not None and is_op(after, "Relu")
    if relu and after is not None:
        chain.append(after)
    rounding = rounding_after(chain[-1].outputs[0])
    if other is None or other.quant is None or rounding is None:
        return False
    if relu and rounding.zero_point != rounding.levels.min():
        return False
    aligned = _in_lanes(ctx, other, found.made)
    if aligned is None:
        return False
    found.inner = _inner(found.activation, quant_of(node))
    if found.activation is not None and found.activation.clip is not None:
        found.activation = None
    found.residual = aligned
    return _take(found, *chain)


def _in_lanes(ctx: Context, other: Value, made: Value) -> Value | None:
    """What is added, as bytes in the layer's order."""
    if other.lane is None and other.dtype is DType.F32 and other.tensor is not None and made.lane is not None:
        if other.form != made.form:
            return None
        other = ctx.builder.packed(other, [made.lane])
    return like(ctx, other, made.form) if other.lane is not None else None


def _inner(activation: Activation | None, quant: Quant) -> Rounding:
    """A rounding; with the bounds before it, where the activation is nothing but bounds."""
    low, high = (int(level) - quant.zero_point for level in (quant.levels.min(), quant.levels.max()))
    bounds = None if activation is None else activation.clip
    if bounds is not None:
        clipped = [int(level) - quant.zero_point for level in quant.rounded(np.clip(bounds, *quant.span))]
        low, high = min(clipped), max(clipped)
    return Rounding(quant.scale, low, high)
