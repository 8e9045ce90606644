"""Gather and scatter. From iOS 17 on MIL's indices may not be negative: constants are made positive, others guarded."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.held import MAX_RANK, Tall
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import ANY, Row

_MODES = {"none": "update", "add": "add", "mul": "mul", "max": "max", "min": "min"}
_NEGATIVE = "a negative index on a dim known at run time only"


def _sizes(b: Building, axes: list[int]) -> Any:
    """Dims of the data as int32, a scalar for one axis: an array when they are fixed, else a variable."""
    dims = [b.dims(0)[axis] for axis in axes]
    if None not in dims:
        return np.array(dims if len(dims) > 1 else dims[0], np.int32)
    if len(axes) == 1:
        return b.mb.squeeze(x=b.dim(b.number(), axes[0]))
    return b.mb.concat(values=[b.dim(b.number(), axis) for axis in axes], axis=0)


def _positive(b: Building, index: int, axes: list[int]) -> Any:
    """Indices from 0 on; ``axes`` says which dim of the data each (or the last axis' each) counts along."""
    known = b.const(index)
    sizes = _sizes(b, axes)
    if known is not None and (isinstance(sizes, np.ndarray) or (known >= 0).all()):
        shift = sizes if isinstance(sizes, np.ndarray) else 0
        return b.array(np.where(known < 0, known + shift, known).astype(np.int32))
    wrapped = b.mb.add(x=b.x(index), y=sizes[()] if isinstance(sizes, np.ndarray) else sizes)
    return b.mb.select(cond=b.mb.greater_equal(x=b.x(index), y=np.int32(0)), a=b.x(index), b=wrapped)


def _gather(b: Building) -> Any:
    axis = b.axis(0)
    known = b.const(1)
    if len(b.dims(0)) > MAX_RANK:
        return _tall_data(b, axis)
    if known is not None and known.ndim == 0 and b.dims(0)[axis] is not None:
        return _one(b, axis, int(known) % int(b.dims(0)[axis] or 1))
    if len(b.out_shape() or ()) > MAX_RANK:
        return _tall(b, axis)
    table = b.weight(0, 0) if b.is_float() else b.number()
    return b.same(b.mb.gather(x=table, indices=_positive(b, 1, [axis]), axis=axis))


def _tall(b: Building, axis: int) -> Any:
    """Indices of several axes as one: the output has more axes than Core ML, but its elements are in the same order."""
    return Tall(b.mb.gather(x=b.x(), indices=_flat_indices(b, axis), axis=axis), b.out_shape() or ())


def _flat_indices(b: Building, axis: int) -> Any:
    flat = _positive(b, 1, [axis])
    return flat.reshape(-1) if isinstance(flat, np.ndarray) else b.mb.reshape(x=flat, shape=[-1])


def _tall_data(b: Building, axis: int) -> Any:
    """The axes before and after the one that is indexed are seen as one each."""
    dims, out = b.dims(0), b.out_shape() or ()
    shape = [
        -1 if None in part else prod(int(dim or 1) for dim in part)
        for part in (dims[:axis], dims[axis : axis + 1], dims[axis + 1 :])
    ]
    y = b.mb.gather(x=b.mb.reshape(x=b.x(), shape=shape), indices=_flat_indices(b, axis), axis=1)
    if len(out) > MAX_RANK:
        return Tall(y, out)
    return b.mb.reshape(x=y, shape=[-1 if dim is None else dim for dim in out])


def _check_gather(node: NodeView) -> Refusal | None:
    is_tall = max(node.rank(0) or 0, len(node.out_shape() or ())) > MAX_RANK
    if is_tall and node.dims(0).count(None) > 1:
        return Refusal(f"data of rank {node.rank(0)} with several sizes known at run time only", "one of them",
                       "Reshape to fewer axes first", "input data")  # fmt: skip
    if is_tall and node.dtype(0) == "bool":
        return Refusal("booleans and a rank above 5", "numbers", "Cast to int32 first", "input data")
    return _check_known(node)


def _one(b: Building, axis: int, place: int) -> Any:
    """A single constant index: a slice that drops the axis."""
    rank = len(b.dims(0))
    here = [other == axis for other in range(rank)]
    return b.mb.slice_by_index(
        x=b.x(),
        begin=[place if picked else 0 for picked in here],
        end=[place + 1 if picked else 0 for picked in here],
        begin_mask=[not picked for picked in here],
        end_mask=[not picked for picked in here],
        squeeze_mask=here,
    )


def _gather_elements(b: Building) -> Any:
    """MIL wants the other axes of the data as long as those of the indices: what is beyond is never read."""
    axis, x = b.axis(0), b.number()
    if not _same_lengths(b, axis):
        ends = [0 if other == axis else int(dim or 0) for other, dim in enumerate(b.dims(1))]
        whole = [other == axis for other in range(len(ends))]
        x = b.mb.slice_by_index(x=x, begin=[0] * len(ends), end=ends, end_mask=whole)
    return b.same(b.mb.gather_along_axis(x=x, indices=_positive(b, 1, [axis]), axis=axis))


def _same_lengths(node: NodeView, axis: int) -> bool:
    pairs = zip(node.dims(0), node.dims(1), strict=True)
    return all(have == want for other, (have, want) in enumerate(pairs) if other != axis)


def _check_elements(node: NodeView) -> Refusal | None:
    if not _same_lengths(node, node.axis(0)) and None in node.dims(1):
        return Refusal(
            "indices of sizes known at run time only, shorter than the data", "fixed sizes", "Export with fixed shapes",
            "input indices",
        )  # fmt: skip
    return _check_known(node)


def _gather_nd(b: Building) -> Any:
    batch = b.integer("batch_dims")
    options = {"batch_dims": batch} if b.ios >= 16 else {}
    indices = _positive(b, 1, list(range(batch, batch + int(b.dims(1)[-1] or 0))))
    if len(b.out_shape() or ()) > MAX_RANK:  # as one row of indices: the elements are in the same order
        flat = [-1, int(b.dims(1)[-1] or 0)]
        rows = indices.reshape(flat) if isinstance(indices, np.ndarray) else b.mb.reshape(x=indices, shape=flat)
        return Tall(b.mb.gather_nd(x=b.x(), indices=rows, **options), b.out_shape() or ())
    return b.same(b.mb.gather_nd(x=b.number(), indices=indices, **options))


def _check_gather_nd(node: NodeView) -> Refusal | None:
    if node.integer("batch_dims") and node.ios < 16:
        return Refusal("batch_dims", "batch_dims from iOS 16 on", "Build for iOS 16", "attribute batch_dims")
    if len(node.out_shape() or ()) > MAX_RANK and (node.integer("batch_dims") or node.dtype(0) == "bool"):
        return Refusal(
            "a rank above 5 with batch_dims or booleans", "numbers without", "Reshape first", "input indices"
        )
    if max(node.rank(0) or 0, node.rank(1) or 0) > MAX_RANK:
        return Refusal("inputs of rank above 5", f"rank up to {MAX_RANK}", "Reshape to fewer axes first", "inputs")
    return _check_last(node) or _check_known(node)


def _check_last(node: NodeView) -> Refusal | None:
    if (node.shape(1) or (None,))[-1] is None:
        return Refusal(
            "a last dim known at run time only", "a fixed last dim", "Export with fixed shapes", "input indices"
        )
    return None


def _check_known(node: NodeView) -> Refusal | None:
    known = node.const(1)
    if known is not None and (known < 0).any() and None in node.dims(0):
        return Refusal(_NEGATIVE, "indices from 0 on", "Export with fixed shapes", "input indices")
    return None


def _scatter_nd(b: Building) -> Any:
    indices = _positive(b, 1, list(range(int(b.dims(1)[-1] or 0))))
    return b.same(
        b.mb.scatter_nd(
            data=b.number(0), indices=indices, updates=b.number(2), mode=_MODES[b.text("reduction", "none")]
        )
    )


def _scatter_elements(b: Building) -> Any:
    """Indices shorter than the data along other axes become full coordinates: MIL's own operation has them equally long."""
    axis, mode = b.axis(0), _MODES[b.text("reduction", "none")]
    data, indices, updates = b.number(0), _positive(b, 1, [axis]), b.number(2)
    if _same_lengths(b, axis):
        return b.same(b.mb.scatter_along_axis(data=data, indices=indices, updates=updates, axis=axis, mode=mode))
    shape = [int(dim or 0) for dim in b.dims(1)]
    grid: list[Any] = [part[..., None].astype(np.int32) for part in np.indices(shape)]
    grid[axis] = indices[..., None] if isinstance(indices, np.ndarray) else b.mb.expand_dims(x=indices, axes=[-1])
    return b.same(b.mb.scatter_nd(data=data, indices=b.mb.concat(values=grid, axis=-1), updates=updates, mode=mode))


def _one_hot(b: Building) -> Any:
    """Compared with 0, 1, 2, … along a new axis; an index out of range matches nothing."""
    depth = int(b.known(1).reshape(-1)[0])
    rank = len(b.dims(0))
    axis = b.integer("axis", -1) % (rank + 1)
    shape = [1] * (rank + 1)
    shape[axis] = depth
    count = np.arange(depth, dtype=np.int32).reshape(shape)
    indices = b.x(0) if b.dtype(0) in ("int32", "int64") else b.mb.cast(x=b.x(0), dtype="int32")
    indices = b.mb.expand_dims(x=indices, axes=[axis])
    wrapped = b.mb.select(
        cond=b.mb.less(x=indices, y=np.int32(0)), a=b.mb.add(x=indices, y=np.int32(depth)), b=indices
    )  # fmt: skip
    off, on = (b.known(2).reshape(-1)[place] for place in (0, 1))
    return b.mb.select(cond=b.mb.equal(x=wrapped, y=count), a=b.array(np.asarray(on)), b=b.array(np.asarray(off)))


def _non_zero(b: Building) -> Any:
    return b.mb.transpose(x=b.mb.non_zero(x=b.x()), perm=[1, 0])


ROWS = (
    Row("Gather", _gather, _check_gather, dtypes=ANY, high_rank=True),
    Row("GatherElements", _gather_elements, _check_elements, dtypes=ANY),
    Row("GatherND", _gather_nd, _check_gather_nd, dtypes=ANY, high_rank=True),
    Row("ScatterND", _scatter_nd, lambda node: _check_last(node) or _check_known(node), dtypes=ANY),
    Row("ScatterElements", _scatter_elements, _check_elements, dtypes=ANY),
    Row("OneHot", _one_hot, static=(1, 2), dtypes=ANY),
    Row("NonZero", _non_zero, dtypes=ANY),
)
