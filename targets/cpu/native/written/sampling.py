"""Values between pixels: GridSample, DeformConv. Pixels are rows of channels, picked by number, and weighed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import numpy as np
import onnx_ir as ir

from edgewise.targets.cpu.native.context import attribute_int, attribute_ints, attribute_text
from edgewise.targets.cpu.native.value import Refusal
from edgewise.targets.cpu.native.written.writer import Writer, given, need, shape_of

Tap = tuple[ir.Value, ir.Value]  # a pixel's number along one axis (int64, inside), and its weight


def _whole(write: Writer, value: ir.Value) -> ir.Value:
    return write("Cast", value, to=ir.DataType.INT64)


def _rows(write: Writer, x: ir.Value, sizes: Sequence[int]) -> ir.Value:
    """[images, channels, pixels...] as [images · pixels, channels]."""
    turned = write("Transpose", x, perm=[0, *range(2, len(sizes)), 1])
    return write.reshape(turned, [sizes[0] * prod(sizes[2:]), sizes[1]])


def _mixed(
    write: Writer, rows: ir.Value, taps: Sequence[Sequence[Tap]], sizes: Sequence[int], offsets: ir.Value | None
) -> list[ir.Value]:
    """For each way to take one tap of every axis: its rows times its weights."""
    made = []
    for chosen in product(*taps):
        number, weight = chosen[0]
        for (at, factor), size in zip(chosen[1:], sizes[1:], strict=True):
            number, weight = write("Add", write("Mul", number, size), at), write("Mul", weight, factor)
        number = number if offsets is None else write("Add", number, offsets)
        made.append(write("Mul", write("Gather", rows, number, axis=0), write("Unsqueeze", weight, [-1])))
    return made


def _total(write: Writer, parts: Sequence[ir.Value]) -> ir.Value:
    return parts[0] if len(parts) == 1 else write("Sum", *parts)


def _offsets(images: int, pixels: int, rank: int) -> np.ndarray:
    """The number of each image's first row, for values of so many axes."""
    return (np.arange(images) * pixels).reshape([-1, *([1] * (rank - 1))])


# -- GridSample

_SHARP = -0.75  # of the cubic, as ONNX has it


def grid_sample(node: ir.Node, write: Writer) -> list[ir.Value]:
    """Pixels and volumes at places from -1 to 1."""
    x, grid = need(node, 0), need(node, 1)
    sizes, wanted = shape_of(x), shape_of(grid)
    mode, corners = attribute_text(node, "mode", "linear"), bool(attribute_int(node, "align_corners", 0))
    padding = attribute_text(node, "padding_mode", "zeros")
    taps = []
    for axis, size in enumerate(sizes[2:]):
        place = write.pick(grid, len(wanted) - 1, wanted[-1] - 1 - axis)  # the last axis comes first
        place = _pixel(write, place, size, corners=corners)
        taps.append([_kept(write, tap, size, padding, corners=corners) for tap in _taps(write, place, mode)])
    offsets = write.value(_offsets(sizes[0], prod(sizes[2:]), len(wanted) - 1))
    made = _total(write, _mixed(write, _rows(write, x, sizes), taps, sizes[2:], offsets))
    rank = len(sizes)
    return [write("Transpose", made, perm=[0, rank - 1, *range(1, rank - 1)])]


def _pixel(write: Writer, place: ir.Value, size: int, *, corners: bool) -> ir.Value:
    """From -1 … 1 to pixels."""
    if corners:
        return write("Mul", write("Add", place, 1.0), (size - 1) / 2)
    return write("Mul", write("Sub", write("Mul", write("Add", place, 1.0), float(size)), 1.0), 0.5)


def _taps(write: Writer, place: ir.Value, mode: str) -> list[Tap]:
    """Pixels (float, maybe outside) around a place, and how much of each."""
    if mode == "nearest":
        return [(write("Round", place), write("Add", write("Mul", place, 0.0), 1.0))]
    first = write("Floor", place)
    part = write("Sub", place, first)
    if mode in ("linear", "bilinear"):
        return [(first, write("Sub", 1.0, part)), (write("Add", first, 1.0), part)]
    if mode not in ("cubic", "bicubic"):
        raise Refusal(f"GridSample with mode {mode!r}")
    return [(write("Add", first, float(step)), _cubic(write, part, step)) for step in (-1, 0, 1, 2)]


def _cubic(write: Writer, part: ir.Value, step: int) -> ir.Value:
    """The weight of a pixel that is ``step`` pixels from the one before the place."""
    t = write("Abs", write("Sub", part, float(step)))
    a = _SHARP
    numbers = [1.0, 0.0, -(a + 3), a + 2] if step in (0, 1) else [-4 * a, 8 * a, -5 * a, a]
    total = write("Mul", t, numbers[3])
    for number in numbers[2:0:-1]:
        total = write("Mul", write("Add", total, number), t)
    return write("Add", total, numbers[0])


def _kept(write: Writer, tap: Tap, size: int, padding: str, *, corners: bool) -> Tap:
    """A pixel that is inside: outside there are zeros, or the border's pixels, or those inside the other way round."""
    at, weight = tap
    if padding == "zeros":
        inside = write("And", write("GreaterOrEqual", at, 0.0), write("LessOrEqual", at, float(size - 1)))
        return _clipped(write, at, size), write("Where", inside, weight, np.zeros((), np.float32))
    if padding == "border":
        return _clipped(write, at, size), weight
    if padding != "reflection":
        raise Refusal(f"GridSample with padding_mode {padding!r}")
    period = max(2 * (size - 1) if corners else 2 * size, 1)
    rest = write("Mod", _whole(write, write("Clip", at, -1e9, 1e9)), period)
    return write("Min", rest, write("Sub", period - (0 if corners else 1), rest)), weight


def _clipped(write: Writer, at: ir.Value, size: int) -> ir.Value:
    return _whole(write, write("Clip", at, 0.0, float(size - 1)))


# -- DeformConv


def deform_conv(node: ir.Node, write: Writer) -> list[ir.Value]:
    """A product of the weights with pixels at the places that offsets say."""
    x, weights, offset, bias, mask = need(node, 0), need(node, 1), need(node, 2), given(node, 3), given(node, 4)
    sizes, shape, out = shape_of(x), shape_of(weights), shape_of(offset)[2:]
    if len(sizes) != 4:
        raise Refusal("DeformConv of other than two axes")
    kernel, groups, parts = shape[2:], attribute_int(node, "group", 1), attribute_int(node, "offset_group", 1)
    images, each = sizes[0], prod(kernel)
    moved = write.reshape(offset, [images, parts, each, 2, *out])
    columns = []
    for part in range(parts):
        own = write.pick(moved, 1, part)  # [images, positions, 2, rows, columns]
        taps = []
        for axis, size in enumerate(sizes[2:]):
            place = write("Add", write.pick(own, 2, axis), _fixed(node, axis, kernel, out))
            taps.append([_kept(write, tap, size, "zeros", corners=True) for tap in _taps(write, place, "linear")])
        channels = sizes[1] // parts
        source = write.cut(x, 1, part * channels, (part + 1) * channels)
        rows = _rows(write, source, [images, channels, *sizes[2:]])
        found = _total(write, _mixed(write, rows, taps, sizes[2:], write.value(_offsets(images, prod(sizes[2:]), 4))))
        if mask is not None:
            factor = write.cut(mask, 1, part * each, (part + 1) * each)
            found = write("Mul", found, write("Unsqueeze", factor, [-1]))
        columns.append(write("Transpose", found, perm=[0, 4, 1, 2, 3]))  # [images, channels, positions, rows, columns]
    whole = columns[0] if parts == 1 else write("Concat", *columns, axis=1)
    inner = shape[1] * each
    whole = write.reshape(whole, [images, groups, inner, prod(out)])
    made = write("MatMul", write.reshape(weights, [1, groups, shape[0] // groups, inner]), whole)
    made = write.reshape(made, [images, shape[0], *out])
    return [made if bias is None else write("Add", made, write.reshape(bias, [1, -1, 1, 1]))]


def _fixed(node: ir.Node, axis: int, kernel: Sequence[int], out: Sequence[int]) -> np.ndarray:
    """Where each position of the kernel meets the image without offsets; [1, positions, rows, columns] or broadcasting to it."""
    strides, dilations = (attribute_ints(node, name) or [1, 1] for name in ("strides", "dilations"))
    pads = attribute_ints(node, "pads") or [0] * 4
    steps = np.arange(out[axis]) * strides[axis] - pads[axis]
    positions = np.unravel_index(np.arange(prod(kernel)), kernel)[axis] * dilations[axis]
    places = positions[:, None] + steps[None]  # [positions, steps]
    shape = [1, prod(kernel), -1, 1] if axis == 0 else [1, prod(kernel), 1, -1]
    return places.reshape(shape).astype(np.float32)


RULES = {"DeformConv": deform_conv, "GridSample": grid_sample}
