"""Operators along one axis, and products of stacks, on tensors of rank 6 and above: seen with three axes they are the same."""

from __future__ import annotations

from math import prod
from typing import Any

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.held import MAX_RANK, Tall
from edgewise.targets.coreml.node import Dims, NodeView
from edgewise.targets.coreml.row import Row

# Reductions that may go over one run of axes after the other.
_SEPARABLE = {f"Reduce{name}": f"reduce_{name.lower()}" for name in ("Mean", "Sum", "Max", "Min", "Prod")}


def takes_flat(node: NodeView, row: Row) -> bool:
    """Whether a node with more axes than Core ML can be built on views of three axes."""
    shapes = _shapes(node)
    if max(map(len, shapes), default=0) <= MAX_RANK or any(shape.count(None) > 1 for shape in shapes):
        return False
    if row.stack:
        return _is_stack(node)
    if row.op in _SEPARABLE:
        return bool(_groups(node)) and node.dtype(0) != "bool"
    span = _span(node, row)
    return span is not None and all(len(shape) == len(shapes[0]) for shape in shapes[: _tensors(node, row)])


def build_flat(b: Building, row: Row) -> Any:
    """Build the operator on the views, and give the outputs their real dims."""
    if row.op in _SEPARABLE:
        return _reduced(b)
    seen = _Flat(b, row)
    made = row.build(seen)
    outputs = made if isinstance(made, list | tuple) else [made]
    return [_real(b, var, b.out_shape(index) or ()) for index, var in enumerate(outputs)]


class _Flat(Building):
    """A node whose axes before and after those that it works along are seen as one each."""

    def __init__(self, b: Building, row: Row) -> None:
        super().__init__(b.node, b.opset, b.values)
        self._span = (0, 0) if row.stack else _span(b, row) or (0, 0)
        self._stack, self._rank = row.stack, max(map(len, _shapes(b)))
        for index in range(len(b.node.inputs)):
            dims = super().shape(index)
            if dims is not None and self._is_flat(dims):
                shape = [-1 if dim is None else dim for dim in self._flat(dims)]
                self.views[index] = b.mb.reshape(x=b.x(index), shape=shape)

    def shape(self, index: int) -> Dims | None:
        """As the operator sees it."""
        dims = super().shape(index)
        return self._flat(dims) if dims is not None and self._is_flat(dims) else dims

    def axis(self, default: int, name: str = "axis") -> int:
        """The middle one."""
        return 1

    def axes(self, index: int, name: str = "axes") -> list[int] | None:
        """The middle one."""
        return [1]

    def _is_flat(self, dims: Dims) -> bool:
        return len(dims) > 2 if self._stack else len(dims) == self._rank

    def _flat(self, dims: Dims) -> Dims:
        if self._stack:
            return (_size(dims[:-2]), *dims[-2:])
        first, last = self._span
        return (_size(dims[:first]), _size(dims[first : last + 1]), _size(dims[last + 1 :]))


def _span(node: NodeView, row: Row) -> tuple[int, int] | None:
    """The first and last of the axes that an operator works along; None when they are not neighbours."""
    if row.along is None or (row.op.endswith("Softmax") and node.opset < 13):
        return None
    if not row.op.startswith("Reduce"):
        axis = node.axis(row.along)
        return axis, axis
    axes = sorted(node.axes(1) or ())
    return (axes[0], axes[-1]) if axes and axes == list(range(axes[0], axes[-1] + 1)) else None


def _groups(node: NodeView) -> list[list[int]]:
    """The axes of a reduction as runs of neighbours; none when all or none are reduced."""
    runs: list[list[int]] = []
    for axis in sorted(node.axes(1) or ()):
        if runs and runs[-1][-1] + 1 == axis:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    return runs


def _reduced(b: Building) -> Any:
    """Each run of axes as the middle one of three, the last run first."""
    var, dims = b.x(0), list(b.dims(0))
    for run in reversed(_groups(b)):
        parts = (dims[: run[0]], dims[run[0] : run[-1] + 1], dims[run[-1] + 1 :])
        sizes = [_size(tuple(part)) for part in parts]
        view = b.mb.reshape(x=var, shape=[-1 if size is None else size for size in sizes])
        var = getattr(b.mb, _SEPARABLE[b.node.op_type])(x=view, axes=[1], keep_dims=True)
        dims[run[0] : run[-1] + 1] = [1] * len(run)
    return _real(b, var, b.out_shape() or ())


def _is_stack(node: NodeView) -> bool:
    """A product whose factors have the same batch dims, or whose second one is a matrix."""
    first, second = node.shape(0) or (), node.shape(1) or ()
    return len(first) > 2 and (len(second) == 2 or (len(first) == len(second) and first[:-2] == second[:-2]))


def _tensors(node: NodeView, row: Row) -> int:
    """How many of the shapes are those of tensors that are seen flat: all inputs of a Concat, else the first one."""
    return len(node.node.inputs) if row.op == "Concat" else 1


def _shapes(node: NodeView) -> list[Dims]:
    values = [node.shape(index) for index in range(len(node.node.inputs))]
    values += [node.out_shape(index) for index in range(len(node.node.outputs))]
    return [shape for shape in values if shape is not None]


def _size(dims: Dims) -> int | None:
    return None if None in dims else prod(dim for dim in dims if dim is not None)


def _real(b: Building, var: Any, dims: Dims) -> Any:
    if len(dims) > MAX_RANK:
        return Tall(var, dims)
    return b.mb.reshape(x=var, shape=[-1 if dim is None else dim for dim in dims])
