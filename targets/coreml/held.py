"""Values that are not (yet) a MIL variable: integer weights, and tensors of more ranks than Core ML has."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import ml_dtypes
import numpy as np

from edgewise.targets.coreml.compact import narrow

MAX_RANK = 5
_LEAST_SPARSE = 1024
_WORTH = 0.9  # of the dense bytes


@dataclass
class Packed:
    """A weight stored as integers: ``scale × (data − zero)``, made into one ``constexpr`` operation when it is needed.

    Attributes:
        data: int8, uint8, int4 or uint4 (ml_dtypes), shape of the weight.
        scale: float32, same rank as ``data``; each dim divides that of ``data`` (1: one scale along it).
        zero: like ``scale``, in the dtype of ``data``; None for zero.
        ios: deployment target.
    """

    data: np.ndarray
    scale: np.ndarray
    zero: np.ndarray | None
    ios: int
    made: Any = field(default=None, repr=False)

    def transposed(self, perm: list[int]) -> Packed:
        """The same weight with its axes moved, still in integers."""
        zero = None if self.zero is None else self.zero.transpose(perm)
        return Packed(self.data.transpose(perm), self.scale.transpose(perm), zero, self.ios)

    def scaled(self, factor: float) -> Packed:
        """The same weight times a number, still in integers."""
        return self if factor == 1 else Packed(self.data, self.scale * np.float32(factor), self.zero, self.ios)

    def var(self, mb: Any) -> Any:
        """The MIL variable; made once."""
        if self.made is None:
            self.made = self._blockwise(mb) if self.ios >= 18 else self._affine(mb)
        return self.made

    def _blockwise(self, mb: Any) -> Any:
        """From iOS 18 on: integers of 4 bits where they fit, and none at all for zeros where that takes fewer bytes."""
        data, signed = self._narrowest()
        bits = 4 if data.dtype.name.endswith("int4") else 8
        if self.zero is not None and self.zero.any():
            offset = narrow(self.zero, bits, signed)
            return mb.constexpr_blockwise_shift_scale(data=narrow(data, bits, signed), scale=self.scale, offset=offset)
        mask = data.astype(np.int16) != 0
        if self.data.size < _LEAST_SPARSE or not 0 < mask.sum() * bits + mask.size < _WORTH * mask.size * bits:
            return mb.constexpr_blockwise_shift_scale(data=narrow(data, bits, signed), scale=self.scale)
        kept, values = mb.constexpr_sparse_blockwise_shift_scale(
            data_mask=narrow(mask, 1), nonzero_data=narrow(data[mask], bits, signed), scale=self.scale
        )
        return mb.constexpr_sparse_to_dense(nonzero_data=values, mask=kept)

    def _narrowest(self) -> tuple[np.ndarray, bool]:
        """The integers, as int4 when all of them fit, and whether they have a sign."""
        signed = not self.data.dtype.name.startswith("u")
        centred = self.zero is None or not self.zero.any()
        if signed and centred and self.data.dtype == np.int8 and np.abs(self.data.astype(np.int16)).max() < 8:
            return self.data.astype(ml_dtypes.int4), signed
        return self.data, signed

    def _affine(self, mb: Any) -> Any:
        axis = self.channel_axis()
        pick: Any = np.ravel if self.scale.size > 1 else (lambda array: array.reshape(-1)[0])
        zero = np.zeros(1, self.data.dtype) if self.zero is None else self.zero.ravel()
        is_one = bool((zero == zero[0]).all())  # for all channels: a number needs no tensor of its own in the file
        return mb.constexpr_affine_dequantize(
            quantized_data=np.ascontiguousarray(self.data),
            zero_point=zero[0] if is_one else zero,
            scale=pick(self.scale),
            axis=np.int32(axis or 0),
        )

    def channel_axis(self) -> int | None:
        """The axis that has a scale of its own per index; None for one scale in all. Only for what is not blockwise."""
        axes = [axis for axis, dim in enumerate(self.scale.shape) if dim > 1]
        return axes[0] if axes else None


@dataclass(frozen=True)
class Tall:
    """A tensor of rank 6 and above: a variable of lower rank with the same elements in the same order, and its real dims.

    ``dims`` holds at most one None (a dim that is known at run time only).
    """

    var: Any
    dims: tuple[int | None, ...]

    def transposed(self, mb: Any, perm: list[int]) -> Tall:
        """Axes moved: neighbours that stay neighbours go as one; what is left of rank 6 and above goes axis by axis."""
        moved = tuple(self.dims[axis] for axis in perm)
        groups = _groups([axis for axis in perm if self.dims[axis] != 1])
        sizes = {group[0]: _size([self.dims[axis] for axis in group]) for group in groups}
        starts = sorted(sizes)
        order = [starts.index(group[0]) for group in groups]
        shape = [sizes[start] for start in starts]
        if len(order) <= MAX_RANK:
            var = mb.transpose(x=mb.reshape(x=self.var, shape=shape), perm=order) if order else self.var
            return Tall(var, moved)
        return Tall(_one_by_one(mb, self.var, shape, order), moved)


def _groups(axes: list[int]) -> list[list[int]]:
    groups: list[list[int]] = []
    for axis in axes:
        if groups and groups[-1][-1] + 1 == axis:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    return groups


def _size(dims: list[int | None]) -> int:
    """The product of dims; -1 when one of them is unknown (MIL's mark for the dim that follows from the others)."""
    return -1 if None in dims else prod(dim for dim in dims if dim is not None)


def _one_by_one(mb: Any, var: Any, shape: list[int], order: list[int]) -> Any:
    """Bring each axis to its place in turn: view as (done, before, axis, after), swap the two in the middle."""
    done: list[int] = []
    for axis in order:
        before = [shape[other] for other in range(axis) if other not in done]
        after = [shape[other] for other in range(axis + 1, len(shape)) if other not in done]
        view = [_product([shape[other] for other in done]), _product(before), shape[axis], _product(after)]
        var = mb.transpose(x=mb.reshape(x=var, shape=view), perm=[0, 2, 1, 3])
        done.append(axis)
    return var


def _product(sizes: list[int]) -> int:
    return -1 if -1 in sizes else prod(sizes)
