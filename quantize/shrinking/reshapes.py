"""Reshape, which joins and splits axes: heads and their width, images and their channels."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
import onnx_ir as ir

from edgewise.quantize.layers import attribute
from edgewise.quantize.shrinking.entries import Entries, Ids, rank_of, size_of
from edgewise.quantize.shrinking.rules import shared

Match = tuple[list[int], list[int]]  # axes of the input and of the output that hold the same entries


def bind_reshape(entries: Entries, node: ir.Node) -> None:
    """Bind a Reshape or Flatten, once everything else is bound.

    Where one axis is split into several, one of them can lose entries; the others stay. It is the first that nothing else
    holds: the heads of [heads, width], and of [3, heads, width] where 3 are picked apart afterwards::

        [N, 6·32] ─► [N, 6, 32]        entry 2 of the heads is bound to entries 64 to 95
    """
    source, made = node.inputs[0], node.outputs[0]
    if rank_of(source) < 0 or rank_of(made) < 0:
        shared(entries, node, [source, made])
        return
    for before, after in matches(node):
        if len(before) == len(after) == 1:
            if size_of(source, before[0]) is not None and size_of(made, after[0]) is not None:
                entries.bind(entries.of(source, before[0]), entries.of(made, after[0]))
        elif len(before) == 1 and before and after:
            _bind_split(entries, node, (source, before[0]), (made, after))
        elif len(after) == 1 and before and after:
            _bind_split(entries, node, (made, after[0]), (source, before))
        else:
            shared(entries, node, [source], before)
            shared(entries, node, [made], after)


def matches(node: ir.Node) -> Iterator[Match]:
    """The shortest runs of axes on both sides with the same number of entries."""
    source, made = node.inputs[0], node.outputs[0]
    if node.op_type == "Flatten":
        cut, rank = attribute(node, "axis", 1), rank_of(source)
        yield from [(list(range(cut)), [0]), (list(range(cut, rank)), [1])]
        return
    old, new = _dims(source), _dims(made)
    i = j = 0
    while i < len(old) or j < len(new):
        first, second = [i] if i < len(old) else [], [j] if j < len(new) else []
        i, j = i + len(first), j + len(second)
        while (left := _product(old, first)) != (right := _product(new, second)):
            if i < len(old) and (j == len(new) or (isinstance(left, int) and isinstance(right, int) and left < right)):
                first, i = [*first, i], i + 1
            elif j < len(new):
                second, j = [*second, j], j + 1
            else:
                break
        yield first, second


def _dims(value: ir.Value | None) -> list[int | str]:
    shape = value.shape if value is not None else None
    return [dim if isinstance(dim, int) else str(dim) for dim in shape or ()]


def _product(dims: list[int | str], axes: list[int]) -> int | tuple[str, ...]:
    chosen = [dims[axis] for axis in axes]
    symbols = tuple(sorted(dim for dim in chosen if isinstance(dim, str)))
    size = prod(dim for dim in chosen if isinstance(dim, int))
    return (*symbols, str(size)) if symbols else size


def _bind_split(
    entries: Entries, node: ir.Node, joined: tuple[ir.Value | None, int], split: tuple[ir.Value | None, list[int]]
) -> None:
    whole = entries.of(*joined)
    value, axes = split
    sizes = [size_of(value, axis) for axis in axes]
    if whole is None or any(size is None for size in sizes):
        shared(entries, node, [joined[0]], [joined[1]])
        shared(entries, node, [value], axes)
        return
    grid = whole.reshape([size or 0 for size in sizes])
    open_axes = [
        place for place, axis in enumerate(axes) if sizes[place] != 1 and not entries.frozen(entries.of(value, axis))
    ]
    place = open_axes[0] if open_axes else 0
    own = entries.of(value, axes[place])
    for index, rest in enumerate(np.moveaxis(grid, place, 0)):
        flat: Ids = rest.reshape(-1)
        if own is not None:
            entries.bind(np.full(flat.size, own[index]), flat)
    for other, axis in enumerate(axes):
        if other != place:
            shared(entries, node, [value], [axis])
