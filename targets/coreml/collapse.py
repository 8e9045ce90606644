"""Element-by-element operators on tensors of rank 6 and above: neighbouring axes that broadcast alike become one."""

from __future__ import annotations

from math import prod

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.held import MAX_RANK, Tall
from edgewise.targets.coreml.node import Dims, NodeView
from edgewise.targets.coreml.row import Row


def is_tall(node: NodeView) -> bool:
    """Whether the output has more axes than Core ML."""
    return len(node.out_shape() or ()) > MAX_RANK


def fits(node: NodeView) -> bool:
    """Whether the axes collapse to few enough."""
    return len(_groups(node)) <= MAX_RANK and (node.out_shape() or ()).count(None) <= 1


def build_collapsed(b: Building, row: Row) -> Tall:
    """Build the operator on views of its inputs, and give the output its real dims."""
    groups = _groups(b)
    for index, value in enumerate(b.node.inputs):
        if value is not None:
            shape = [_size([_padded(b, index)[axis] for axis in group]) for group in groups] or [1]
            b.views[index] = b.mb.reshape(x=b.x(index), shape=shape)
    return Tall(row.build(b), b.out_shape() or ())


def _padded(node: NodeView, index: int) -> Dims:
    rank, shape = len(node.out_shape() or ()), node.dims(index)
    return (1,) * (rank - len(shape)) + shape


def _groups(node: NodeView) -> list[list[int]]:
    """Runs of axes along which each input is either whole or a single element; axes of one element are left out."""
    inputs = [index for index in range(len(node.node.inputs)) if node.given(index)]
    out = node.out_shape() or ()
    groups: list[list[int]] = []
    last: tuple[bool, ...] | None = None
    for axis, dim in enumerate(out):
        if dim == 1:
            continue
        pattern = tuple(_padded(node, index)[axis] == 1 for index in inputs)
        if pattern == last:
            groups[-1].append(axis)
        else:
            groups.append([axis])
        last = pattern
    return groups


def _size(dims: list[int | None]) -> int:
    return -1 if None in dims else prod(dim for dim in dims if dim is not None)
