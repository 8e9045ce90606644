"""Operators that keep the elements and their order: Reshape and its kin. Ranks above 5 pass through them as ``Tall``."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.held import MAX_RANK, Packed, Tall
from edgewise.targets.coreml.node import NodeView, is_weight
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import ANY, BYTES, Row


def _tall(b: Building, var: Any) -> Any:
    """The output, which has more than 5 ranks, as a view of a variable."""
    return Tall(var, tuple(b.out_shape() or ()))


def _is_tall(b: Building) -> bool:
    return len(b.out_shape() or ()) > MAX_RANK


def _as(b: Building, dims: list[Any]) -> Any:
    if not dims:
        return b.mb.squeeze(x=b.mb.reshape(x=b.x(), shape=[1]))
    return b.mb.reshape(x=b.x(), shape=b.shape_of(b.x(), dims))


def _reshape(b: Building) -> Any:
    if _is_tall(b):
        return _tall(b, b.x())
    target = b.param(1, "shape")
    if target is None:
        return b.mb.reshape(x=b.x(), shape=b.x(1))
    dims: list[Any] = [int(dim) for dim in target.reshape(-1)]
    if not b.integer("allowzero"):
        dims = [_inherited(b, axis) if dim == 0 else dim for axis, dim in enumerate(dims)]
    return _as(b, dims)


def _inherited(b: Building, axis: int) -> Any:
    """A target dim of 0 is the input's own: a number, or what it is at run time."""
    dim = b.dims(0)[axis]
    return dim if dim is not None else b.dim(b.x(), axis)


def _check_reshape(node: NodeView) -> Refusal | None:
    tall_in, tall_out = (len(shape or ()) > MAX_RANK for shape in (node.shape(0), node.out_shape()))
    target = node.param(1, "shape")
    if target is None and (tall_in or tall_out):
        return Refusal(
            f"a shape computed at run time and rank above {MAX_RANK}", f"rank up to {MAX_RANK}, or a constant shape",
            "Export with fixed shapes", "input shape",
        )  # fmt: skip
    if target is not None and (target == 0).any() and node.integer("allowzero"):
        return Refusal("an empty tensor", "tensors with elements", "Drop what makes it", "attribute allowzero")
    if target is not None and tall_in and (target == 0).any() and None in (node.shape(0) or ()):
        return Refusal("dims of 0 (as the input)", "numbers or -1", "Export with fixed shapes", "input shape")
    return None


def _unsqueeze(b: Building) -> Any:
    if _is_tall(b):
        return _tall(b, b.x())
    axes = b.param(1, "axes")
    rank = len(b.dims(0)) + (0 if axes is None else axes.size)
    return b.mb.expand_dims(x=b.x(), axes=sorted(int(axis) % rank for axis in axes.reshape(-1)))  # type: ignore[union-attr]


def _squeeze(b: Building) -> Any:
    if _is_tall(b):
        return _tall(b, b.x())
    axes = b.axes(1)
    if isinstance(b.held(0), Tall):
        return b.mb.reshape(x=b.x(), shape=[-1 if dim is None else dim for dim in b.out_shape() or ()])
    if axes is None:
        axes = [axis for axis, dim in enumerate(b.dims(0)) if dim == 1]
    return b.mb.squeeze(x=b.x(), axes=axes) if axes else b.mb.identity(x=b.x())


def _check_squeeze(node: NodeView) -> Refusal | None:
    if node.param(1, "axes") is None and None in node.dims(0):
        return Refusal("no axes on dims known at run time only", "axes", "Give the axes", "input axes")
    return None


def _flatten(b: Building) -> Any:
    shape, axis = b.dims(0), b.integer("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    lead, rest = shape[:axis], shape[axis:]
    if None in lead and None in rest:
        return b.mb.flatten2d(x=b.x(), axis=axis)
    return b.mb.reshape(x=b.x(), shape=[_size(lead), _size(rest)])


def _size(dims: tuple[int | None, ...]) -> int:
    return -1 if None in dims else prod(dim for dim in dims if dim is not None)


def _transpose(b: Building) -> Any:
    rank = len(b.dims(0))
    perm = b.integers("perm", list(range(rank))[::-1])
    held = b.held(0)
    if isinstance(held, Packed) and is_weight(b.value(0)):
        return held.transposed(perm)
    if isinstance(held, Tall) or rank > MAX_RANK:
        return (held if isinstance(held, Tall) else Tall(b.x(), b.dims(0))).transposed(b.mb, perm)
    return b.mb.transpose(x=b.x(), perm=perm) if perm != list(range(rank)) else b.mb.identity(x=b.x())


def _identity(b: Building) -> Any:
    held = b.held(0)
    return held if isinstance(held, Packed | Tall) else b.mb.identity(x=held)


def _check_dropout(node: NodeView) -> Refusal | None:
    training, ratio = node.param(2, "training_mode"), node.param(1, "ratio")
    if training is not None and bool(np.ravel(training)[0]) and (ratio is None or float(np.ravel(ratio)[0]) > 0):
        return Refusal("training mode", "inference", "Export the model in eval mode", "input training_mode")
    if node.used(1) and None in node.dims(0):
        return Refusal("a mask of sizes known at run time only", "fixed shapes", "Drop what reads it", "output mask")
    return None


def _dropout(b: Building) -> Any:
    y = b.mb.identity(x=b.x())
    return [y, b.mb.const(val=np.ones([int(dim or 0) for dim in b.dims(0)], bool))] if b.used(1) else y


def _depth_to_space(b: Building) -> Any:
    block = b.integer("blocksize")
    if b.text("mode", "DCR") == "CRD":
        return b.mb.pixel_shuffle(x=b.x(), upscale_factor=block)
    return b.mb.depth_to_space(x=b.x(), block_size=block)


def _space_to_depth(b: Building) -> Any:
    if b.text("mode", "DCR") == "CRD":
        return b.mb.pixel_unshuffle(x=b.x(), downscale_factor=np.uint32(b.integer("blocksize")))
    return b.mb.space_to_depth(x=b.x(), block_size=b.integer("blocksize"))


def _check_space(node: NodeView) -> Refusal | None:
    if node.text("mode", "DCR") == "CRD" and node.ios < 16:
        return Refusal("mode CRD", "mode CRD from iOS 16 on", "Build for iOS 16", "attribute mode")
    return None


_BYTES = ANY | BYTES
_FLOATS = frozenset({"float16", "float32"})

ROWS = (
    Row("Reshape", _reshape, _check_reshape, clamped=(1,), dtypes=_BYTES, high_rank=True, note="ranks above 5 only on the way to a Transpose"),
    Row("Transpose", _transpose, dtypes=_BYTES, high_rank=True),
    Row("Flatten", _flatten, dtypes=ANY),
    Row("Squeeze", _squeeze, _check_squeeze, static=(1,), dtypes=_BYTES, high_rank=True),
    Row("Unsqueeze", _unsqueeze, static=(1,), dtypes=_BYTES, high_rank=True),
    Row("Identity", _identity, dtypes=_BYTES, high_rank=True),
    Row("Dropout", _dropout, _check_dropout, static=(1, 2)),
    Row("DepthToSpace", _depth_to_space, dtypes=_FLOATS),
    Row("SpaceToDepth", _space_to_depth, _check_space, dtypes=_FLOATS),
)  # fmt: skip
