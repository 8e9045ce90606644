"""Elements picked and replaced by indices: all of them are Gather from, or ``edgewise::Scatter`` into, rows that are numbered through."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgewise.targets.cpu.native.context import attribute_int, attribute_text, constant_array
from edgewise.targets.cpu.native.value import Refusal
from edgewise.targets.cpu.native.written.writer import Writer, constant, given, need, rank_of, shape_of


def _positive(write: Writer, indices: ir.Value, size: int | np.ndarray) -> ir.Value:
    """Negative indices count from the end."""
    indices = write("Cast", indices, to=ir.DataType.INT64)
    return write("Where", write("Less", indices, 0), write("Add", indices, size), indices)


def _numbered(write: Writer, indices: ir.Value, sizes: list[int], inner: int) -> ir.Value:
    """Of tuples of indices (the last axis) the number of the row, when rows of ``inner`` elements are numbered through."""
    strides = [int(np.prod(sizes[index + 1 :])) for index in range(len(sizes))]
    positive = _positive(write, indices, np.asarray(sizes, np.int64))
    return write("ReduceSum", write("Mul", positive, np.asarray(strides, np.int64)), [-1], keepdims=0)


def _places_of(indices: ir.Value) -> list[int]:
    """The sizes of tuples of indices; of one axis of tuples that a run counts -1."""
    if indices.shape is None or len(indices.shape) != 2 or isinstance(indices.shape[0], int):
        return shape_of(indices)
    length = indices.shape[1]
    if not isinstance(length, int):
        raise Refusal(f"the sizes of {indices.name!r} are not known")
    return [-1, length]


def gather_nd(node: ir.Node, write: Writer) -> list[ir.Value]:
    """Rows named by tuples of indices."""
    x, indices, batch = need(node, 0), need(node, 1), attribute_int(node, "batch_dims", 0)
    if batch == 0 and x.shape is not None and not x.shape.is_static():
        return [_gather_open(write, x, indices)]
    sizes, wanted = shape_of(x), _places_of(indices)
    length = wanted[-1]
    used, rest = sizes[batch : batch + length], sizes[batch + length :]
    rows = _numbered(write, indices, used, 1)
    if batch:
        images = int(np.prod(sizes[:batch]))
        offsets = np.arange(images, dtype=np.int64) * int(np.prod(used))
        rows = write("Add", write.reshape(rows, [images, -1]), offsets.reshape(-1, 1))
    flat = write.reshape(x, [int(np.prod(sizes[: batch + length])), int(np.prod(rest))])
    return [write.reshape(write("Gather", flat, write.reshape(rows, [-1]), axis=0), [*wanted[:-1], *rest])]


def _gather_open(write: Writer, x: ir.Value, indices: ir.Value) -> ir.Value:
    """GatherND from axes of open length, by which the rows' numbers are computed: masks of transformers are picked so."""
    length = indices.shape[-1] if indices.shape is not None and len(indices.shape) else None
    if not isinstance(length, int) or not 0 < length <= rank_of(x):
        raise Refusal(f"the sizes of {indices.name!r} are not known")
    sizes = write("Shape", x)
    rows: ir.Value | None = None
    for axis in range(length):
        size = write.cut(sizes, 0, axis, axis + 1)
        index = write("Cast", write.pick(indices, rank_of(indices) - 1, axis), to=ir.DataType.INT64)
        index = write("Where", write("Less", index, 0), write("Add", index, size), index)
        rows = index if rows is None else write("Add", write("Mul", rows, size), index)
    rest = write.cut(sizes, 0, length, rank_of(x))
    return write("Gather", write("Reshape", x, write("Concat", [-1], rest, axis=0)), rows, axis=0)


def one_hot(node: ir.Node, write: Writer) -> list[ir.Value]:
    """The second of two values where an index is, the first elsewhere."""
    indices, depth, values = need(node, 0), constant(node, 1), need(node, 2)
    count, rank = int(np.asarray(depth).reshape(-1)[0]), rank_of(indices)
    axis = attribute_int(node, "axis", -1) % (rank + 1)
    places = np.arange(count).reshape([-1 if index == axis else 1 for index in range(rank + 1)])
    found = write("Equal", write("Unsqueeze", _positive(write, indices, count), [axis]), places)
    return [write("Where", found, write.cut(values, 0, 1, 2), write.cut(values, 0, 0, 1))]


def reverse_sequence(node: ir.Node, write: Writer) -> list[ir.Value]:
    """The first so many of each sequence the other way round, by their lengths."""
    x, lengths = need(node, 0), need(node, 1)
    sizes = shape_of(x)
    batch, time = attribute_int(node, "batch_axis", 1), attribute_int(node, "time_axis", 0)
    steps = np.arange(sizes[time]).reshape([-1 if axis == time else 1 for axis in range(len(sizes))])
    length = write.reshape(
        write("Cast", lengths, to=ir.DataType.INT64), [-1 if axis == batch else 1 for axis in range(len(sizes))]
    )
    turned = write("Sub", write("Sub", length, 1), steps)
    index = write("Where", write("Less", steps, length), turned, steps)
    return [write("GatherElements", x, write("Expand", index, sizes), axis=time)]


def scattered(write: Writer, x: ir.Value, rows: ir.Value, updates: ir.Value, row: int, reduction: str) -> ir.Value:
    """A value seen as rows of so many elements, with those that are named by number replaced."""
    sizes = shape_of(x)
    flat = write.reshape(x, [int(np.prod(sizes)) // row, row])
    made = ir.node(
        "Scatter",
        [flat, write.reshape(rows, [-1]), write.reshape(updates, [-1, row])],
        {"reduction": reduction},
        domain="edgewise",
    )
    write.add(made)
    made.outputs[0].type, made.outputs[0].shape = x.type, flat.shape
    return write.reshape(made.outputs[0], sizes)


def scatter_nd(node: ir.Node, write: Writer) -> list[ir.Value]:
    """Rows named by tuples of indices, replaced."""
    x, indices, updates = (need(node, index) for index in range(3))
    sizes, wanted = shape_of(x), _places_of(indices)
    length = wanted[-1]
    inner = int(np.prod(sizes[length:]))
    if 0 in [*sizes, *wanted]:
        raise Refusal("no elements")
    rows = _numbered(write, indices, sizes[:length], inner)
    return [scattered(write, x, rows, updates, inner, attribute_text(node, "reduction", "none"))]


def scatter_elements(node: ir.Node, write: Writer) -> list[ir.Value]:
    """Elements of the same place but on one axis, replaced."""
    x, indices, updates = (need(node, index) for index in range(3))
    sizes, wanted = shape_of(x), shape_of(indices)
    axis = attribute_int(node, "axis", 0) % len(sizes)
    if 0 in [*sizes, *wanted]:
        raise Refusal("no elements")
    strides = [int(np.prod(sizes[index + 1 :])) for index in range(len(sizes))]
    others = np.zeros(wanted, np.int64)
    for index, (size, stride) in enumerate(zip(wanted, strides, strict=True)):
        if index != axis:
            others += (np.arange(size) * stride).reshape([-1 if one == index else 1 for one in range(len(sizes))])
    places = write("Add", write("Mul", _positive(write, indices, sizes[axis]), strides[axis]), others)
    return [scattered(write, x, places, updates, 1, attribute_text(node, "reduction", "none"))]


def tensor_scatter(node: ir.Node, write: Writer) -> list[ir.Value]:
    """A cache whose entries from an index on are replaced (opset 24); one index for each of the first axis."""
    past, update = need(node, 0), need(node, 1)
    sizes, new = shape_of(past), shape_of(update)
    axis = attribute_int(node, "axis", -2) % len(sizes)
    ones = [1] * len(sizes)
    first = node.inputs[2] if len(node.inputs) > 2 else None
    start = write("Reshape", np.zeros(sizes[0], np.int64) if first is None else first, [sizes[0], *ones[1:]])
    places = np.arange(sizes[axis]).reshape([-1 if index == axis else 1 for index in range(len(sizes))])
    since = write("Sub", places, start)
    if attribute_text(node, "mode", "linear") == "circular":
        since = write("Mod", since, sizes[axis])
    inside = write("And", write("GreaterOrEqual", since, 0), write("Less", since, new[axis]))
    index = write("Min", write("Max", since, 0), new[axis] - 1)
    moved = write("GatherElements", update, write("Expand", index, sizes), axis=axis)
    return [write("Where", inside, moved, past)]


def pad(node: ir.Node, write: Writer) -> list[ir.Value] | None:
    """Negative numbers cut off; then what is positive is added."""
    given_pads = given(node, 1)
    pads = None if given_pads is None else constant_array(given_pads)
    if pads is None or np.all(pads >= 0) or attribute_text(node, "mode", "constant") != "constant":
        return None
    x, given_axes = need(node, 0), constant(node, 3)
    axes = np.arange(rank_of(x)) if given_axes is None else given_axes
    begins, ends = np.split(pads.astype(np.int64), 2)
    last = np.where(ends < 0, ends, np.iinfo(np.int64).max)
    cut = write("Slice", x, np.maximum(-begins, 0), last, axes)
    if np.all(pads <= 0):
        return [cut]
    return [write("Pad", cut, np.maximum(pads, 0), node.inputs[2] if len(node.inputs) > 2 else None, axes)]


RULES = {
    "GatherND": gather_nd,
    "OneHot": one_hot,
    "Pad": pad,
    "ReverseSequence": reverse_sequence,
    "Scatter": scatter_elements,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "TensorScatter": tensor_scatter,
}
