"""Pools that tell where the largest element was, the way back, and arithmetic of small integers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import numpy as np
import onnx_ir as ir

from edgewise.targets.cpu.native.context import attribute_int, attribute_ints, attribute_text
from edgewise.targets.cpu.native.value import Refusal
from edgewise.targets.cpu.native.written.indexing import scattered
from edgewise.targets.cpu.native.written.writer import Writer, constant, need, shape_of

_MOST = 128  # elements of a window


def max_pool(node: ir.Node, write: Writer) -> list[ir.Value] | None:
    """Window by window, one element of each after the other: what is greater than all before it, and its place in the input."""
    if len(node.outputs) < 2 or not (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        return None
    x, kernel = need(node, 0), attribute_ints(node, "kernel_shape") or []
    sizes, out, rank = shape_of(x), shape_of(node.outputs[0])[2:], len(kernel)
    if attribute_text(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID") or prod(kernel) > _MOST:
        raise Refusal("MaxPool whose indices are used, with auto_pad or a large window")
    strides, dilations = (attribute_ints(node, name) or [1] * rank for name in ("strides", "dilations"))
    begins = (attribute_ints(node, "pads") or [0] * rank)[:rank]
    reach = [(o - 1) * s + d * (k - 1) + 1 for o, s, d, k in zip(out, strides, dilations, kernel, strict=True)]
    ends = [max(end - begin - size, 0) for end, begin, size in zip(reach, begins, sizes[2:], strict=True)]
    padded = write("Pad", x, [0, 0, *begins, 0, 0, *ends], np.array(-np.inf, np.float32))
    best: ir.Value | None = None
    places: ir.Value | None = None
    for position in product(*map(range, kernel)):
        starts = [at * step for at, step in zip(position, dilations, strict=True)]
        last = [start + (o - 1) * s + 1 for start, o, s in zip(starts, out, strides, strict=True)]
        part = write("Slice", padded, starts, last, list(range(2, rank + 2)), strides)
        here = write.value(_numbers(node, sizes, out, strides, [a - b for a, b in zip(starts, begins, strict=True)]))
        if best is None or places is None:
            best, places = part, here
            continue
        greater = write("Greater", part, best)
        best, places = write("Where", greater, part, best), write("Where", greater, here, places)
    if best is None or places is None:
        raise Refusal("a window of no elements")
    return [best, write("Add", places, np.zeros([*sizes[:2], *out], np.int64))]


def _numbers(
    node: ir.Node, sizes: Sequence[int], out: Sequence[int], strides: Sequence[int], starts: Sequence[int]
) -> np.ndarray:
    """Which element of the input, numbered through, one position of every window is; [images, channels, windows...]."""
    rank = len(out)
    axes = list(range(rank))[:: -1 if attribute_int(node, "storage_order", 0) else 1]  # the last one is the innermost
    number = np.zeros([1] * rank, np.int64)
    for axis in axes:
        place = starts[axis] + strides[axis] * np.arange(out[axis])
        number = number * sizes[axis + 2] + place.reshape([-1 if one == axis else 1 for one in range(rank)])
    planes = np.arange(prod(sizes[:2])).reshape([*sizes[:2], *[1] * rank]) * prod(sizes[2:])
    made: np.ndarray = planes + number
    return made


def max_unpool(node: ir.Node, write: Writer) -> list[ir.Value]:
    """Zeros, and the elements where they came from."""
    x, places, wanted = need(node, 0), need(node, 1), constant(node, 2)
    sizes, kernel = shape_of(x), attribute_ints(node, "kernel_shape") or []
    rank = len(kernel)
    strides, pads = attribute_ints(node, "strides") or [1] * rank, attribute_ints(node, "pads") or [0] * (2 * rank)
    whole = [
        (size - 1) * strides[axis] + kernel[axis] - pads[axis] - pads[axis + rank]
        for axis, size in enumerate(sizes[2:])
    ]
    zeros = write.value(np.zeros([*sizes[:2], *whole], np.float32))
    if zeros is None:
        raise AssertionError
    made = scattered(write, zeros, places, x, 1, "none")
    if wanted is None:
        return [made]
    more = [int(want) - size for want, size in zip(wanted, [*sizes[:2], *whole], strict=True)]
    if any(one < 0 for one in more):
        raise Refusal("MaxUnpool to less than the pool's input")
    return [write("Pad", made, [0] * len(more) + more)]


def small_integers(node: ir.Node, write: Writer) -> list[ir.Value] | None:
    """Arithmetic and comparisons of 8-bit integers in 32 bits, which wrap around on the way back."""
    small = (ir.DataType.UINT8, ir.DataType.INT8)
    kind = need(node, 0).dtype
    if kind not in small or kind is None:
        return None
    wide = [write("Cast", need(node, index), to=ir.DataType.INT32) for index in range(len(node.inputs))]
    made = write(node.op_type, *wide, **{name: attribute.value for name, attribute in node.attributes.items()})
    return [made if node.op_type in _COMPARISONS else write("Cast", made, to=kind)]


_COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
RULES = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Max", "Min", "Mod", *_COMPARISONS), small_integers),
    "MaxPool": max_pool,
    "MaxUnpool": max_unpool,
}
