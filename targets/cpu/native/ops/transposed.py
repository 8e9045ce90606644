"""ConvTranspose: an ordinary convolution that makes all of an output step's pixels at once, seen in another order.

With stride s, output pixel s·q + r meets the kernel's positions r, r + s, r + 2·s, … only. So each of the s remainders (in each
direction) is a convolution of the input with a part of the kernel, turned around, and all of them together are one layer with that many
times the channels. How its output lies in memory is a matter of factors (form.py); what pads take away is cut off afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from edgewise.targets.cpu.native.context import Context, attribute_int, attribute_ints, attribute_text
from edgewise.targets.cpu.native.epilogue import finish, follow
from edgewise.targets.cpu.native.form import Form
from edgewise.targets.cpu.native.ops.linear import (
    Layer,
    Weights,
    Window,
    count_macs,
    emit,
    input_of,
    weights_of,
    with_channels,
)
from edgewise.targets.cpu.native.ops.movement import sliced
from edgewise.targets.cpu.native.plan import Dim, dim
from edgewise.targets.cpu.native.value import Refusal, Value

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Steps:
    """How a ConvTranspose walks; lists over the spatial axes.

    Attributes:
        strides: of the output, for one of the input.
        parts: positions of the kernel that one output pixel meets.
        window: of the convolution that computes it.
        cut: output pixels before the first that is wanted.
        reach: the output's size less ``strides`` times the input's size.
    """

    strides: list[int]
    parts: list[int]
    window: Window
    cut: list[int]
    reach: list[int]

    @property
    def whole(self) -> bool:
        """Whether nothing is cut off."""
        more = [a + b for a, b in zip(self.window.pads, self.window.pads[len(self.parts) :], strict=False)]
        rows = [more[axis] - part + 1 for axis, part in enumerate(self.parts)]
        return not any(self.cut) and all(s * row == r for s, row, r in zip(self.strides, rows, self.reach, strict=True))


def conv_transpose(node: ir.Node, ctx: Context) -> None:
    """ConvTranspose with constant weights; of bytes in bytes."""
    value, given = ctx.input(node, 0), weights_of(ctx, node, 1, 1)
    rank, group = given.real.ndim - 2, attribute_int(node, "group", 1)
    if value.rank != rank + 2 or value.size(1) != given.real.shape[1] or value.size(1) % group:
        raise Refusal("weights of another shape")
    steps = _steps(node, value, list(given.real.shape[2:]), group)
    weights = _rearranged(given, attribute_ints(node, "dilations") or [1] * rank, steps)
    integer = value.quant is not None and weights.integers is not None
    value = ctx.builder.as_unsigned(value) if integer else ctx.builder.real(value)
    value = with_channels(ctx, value, 1, spatial=True)
    layer = Layer(value, *input_of(ctx, value, 1, steps.window, integer=integer), weights, steps.window)
    expected = _expected(layer, steps, given.outputs)
    count_macs(
        ctx, weights, Form.plain([layer.dims[0], dim(weights.outputs), *steps.window.sizes(list(layer.dims[2:]))])
    )
    found = follow(ctx, node.outputs[0], expected, layer.dims[0], weights.outputs, integer=integer, views=steps.whole)
    made = emit(ctx, found, layer)
    for axis, size in enumerate(layer.dims[2:] if not steps.whole else ()):
        end = size * steps.strides[axis] + (steps.reach[axis] + steps.cut[axis])
        made = sliced(made, axis + 2, dim(steps.cut[axis]), end, 1, ctx)
    finish(ctx, found, made)


def _steps(node: ir.Node, value: Value, kernel: list[int], group: int) -> Steps:
    rank = len(kernel)
    if not 1 <= rank <= 3:
        raise Refusal(f"{rank} spatial axes")
    strides = attribute_ints(node, "strides") or [1] * rank
    dilations = attribute_ints(node, "dilations") or [1] * rank
    extra = attribute_ints(node, "output_padding") or [0] * rank
    plain = [(k - 1) * d + 1 - s + e for k, d, s, e in zip(kernel, dilations, strides, extra, strict=True)]
    pads, extra = _pads(node, value, plain, strides, extra)
    reach = [dilations[axis] * (kernel[axis] - 1) + 1 + extra[axis] - pads[rank + axis] for axis in range(rank)]
    parts = [-(-(dilations[axis] * (kernel[axis] - 1) + 1) // strides[axis]) for axis in range(rank)]
    skipped = [min(pads[axis] // strides[axis], parts[axis] - 1) for axis in range(rank)]
    begins = [part - 1 - skip for part, skip in zip(parts, skipped, strict=True)]
    ends = [max(-(-one // stride) - 1, 0) for one, stride in zip(reach, strides, strict=True)]
    window = Window(parts, [1] * rank, [1] * rank, [*begins, *ends], group)
    cut = [pads[axis] - skipped[axis] * strides[axis] for axis in range(rank)]
    sizes = [one - strides[axis] - pads[axis] for axis, one in enumerate(reach)]
    return Steps(strides, parts, window, cut, sizes)


def _pads(
    node: ir.Node, value: Value, plain: list[int], strides: list[int], extra: list[int]
) -> tuple[list[int], list[int]]:
    """Pads and output padding, worked out of ``output_shape`` or ``auto_pad``; ``plain``: what an axis is longer than size x stride without pads."""
    rank, auto = len(strides), attribute_text(node, "auto_pad", "NOTSET")
    wanted = attribute_ints(node, "output_shape")
    if wanted is not None:
        over = [value.size(axis + 2) * strides[axis] + plain[axis] - wanted[axis - rank] for axis in range(rank)]
    elif auto.startswith("SAME"):
        if min(plain) < 0:
            raise Refusal("auto_pad of a kernel shorter than its stride, on which runtimes do not agree")
        over = plain
    else:
        return ([0] * (2 * rank) if auto == "VALID" else attribute_ints(node, "pads") or [0] * (2 * rank)), extra
    small, large = [max(one, 0) // 2 for one in over], [-(-max(one, 0) // 2) for one in over]
    pads = small + large if auto == "SAME_UPPER" else large + small
    return pads, [one + max(-more, 0) for one, more in zip(extra, over, strict=True)]


def _rearranged(given: Weights, dilations: list[int], steps: Steps) -> Weights:
    """Weights [M / group, C, kernel...] as those of a convolution: [group · remainders · M / group, C / group, parts...]."""
    group, outputs = steps.window.group, given.outputs
    remainders = prod(steps.strides)

    def turned(array: np.ndarray) -> np.ndarray:
        for axis, (dilation, stride, part) in enumerate(zip(dilations, steps.strides, steps.parts, strict=True)):
            array = _parted(array, 2 + 2 * axis, dilation, stride, part)
        rank = len(dilations)
        array = array.reshape(outputs, group, -1, *array.shape[2:])
        order = [1, *(4 + 2 * axis for axis in range(rank)), 0, 2, *(3 + 2 * axis for axis in range(rank))]
        array = array.transpose(order)
        return np.ascontiguousarray(array.reshape(group * remainders * outputs, -1, *steps.parts))

    scale = (
        np.broadcast_to(given.scale, (group, remainders, outputs)).reshape(-1) if given.scale.size > 1 else given.scale
    )
    bias = given.bias.reshape(-1, 1, outputs)  # of all channels, or (none given) of one group
    return Weights(
        turned(given.real),
        None if given.integers is None else turned(given.integers),
        np.ascontiguousarray(scale),
        np.broadcast_to(bias, (group, remainders, outputs)).reshape(-1).copy(),
    )


def _parted(array: np.ndarray, axis: int, dilation: int, stride: int, parts: int) -> np.ndarray:
    """An axis of kernel positions as [parts, remainders], the parts turned around; zeros where there is no position."""
    shape = list(array.shape)
    spread = np.zeros([*shape[:axis], stride * parts, *shape[axis + 1 :]], array.dtype)
    spread[(slice(None),) * axis + (slice(0, dilation * (shape[axis] - 1) + 1, dilation),)] = array
    spread = spread.reshape(*shape[:axis], parts, stride, *shape[axis + 1 :])
    return np.flip(spread, axis)


def _expected(layer: Layer, steps: Steps, outputs: int) -> Value:
    """The output before anything is cut off; with the lane that it would have as bytes."""
    group, sizes = steps.window.group, steps.window.sizes(list(layer.dims[2:]))
    axes: list[list[tuple[str, Dim]]] = [
        [("images", layer.dims[0])],
        [("group", dim(group)), ("channels", dim(outputs))],
    ]
    axes += [[(f"at{axis}", size), (f"step{axis}", dim(steps.strides[axis]))] for axis, size in enumerate(sizes)]
    rank = len(sizes)
    wanted = [
        "images",
        "group",
        *(f"step{axis}" for axis in range(rank)),
        "channels",
        *(f"at{axis}" for axis in range(rank)),
    ]
    kept = [[(name, size) for name, size in axis if size.constant != 1] for axis in axes]
    names = [name for axis in kept for name, _ in axis]
    form = Form(
        tuple(tuple(size for _, size in axis) for axis in kept),
        tuple(names.index(name) for name in wanted if name in names),
    )
    return Value(form, lane=names.index("channels") if outputs % 4 == 0 else None)
