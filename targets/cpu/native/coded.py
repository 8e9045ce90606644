"""Weights that are stored in 4 or 8 bits and multiplied as float32: what their bits stand for, and how libedgewise reads them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from edgewise.targets.cpu.native.packing import Packed
from edgewise.targets.cpu.native.value import Refusal

_LINE = 16  # outputs that lie side by side
_LEAST = {"int4": -8, "uint4": 0, "int8": -128, "uint8": 0}


@dataclass(frozen=True)
class Rows:
    """A layer's weights in codes: real = (code − zero) · scale.

    Attributes:
        codes: uint8 [M, entries], from 0 on.
        scale: float64 [M, blocks].
        zero: float64 [M, blocks].
        block: how many neighbouring entries share a scale.
        bits: 4 or 8.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray
    block: int
    bits: int

    def kept(self, outputs: slice) -> Rows:
        """Some of the outputs."""
        return replace(self, codes=self.codes[outputs], scale=self.scale[outputs], zero=self.zero[outputs])

    def packed(self, factor: np.ndarray) -> Packed:
        """The operands of ``conv``, each output times a factor [M]."""
        outputs, entries = self.codes.shape
        lines = -(-outputs // _LINE)
        codes = np.zeros((lines * _LINE, entries + entries % 2 * (self.bits == 4)), np.uint8)
        codes[:outputs, :entries] = self.codes
        codes = codes.reshape(lines, _LINE, -1).swapaxes(1, 2)
        if self.bits == 4:
            codes = codes[:, 0::2] | codes[:, 1::2] << 4
        scale = self.scale * factor[:, None]
        terms = np.zeros((lines * _LINE, self.scale.shape[1], 2))
        terms[:outputs] = np.stack([scale, -self.zero * scale], axis=-1)
        terms = terms.reshape(lines, _LINE, -1, 2).transpose(0, 2, 3, 1)
        constants = {"weights": np.ascontiguousarray(codes), "terms": np.ascontiguousarray(terms, np.float32)}
        return Packed(constants, {"group": 1, "weight_bits": self.bits, "weight_block": self.block})

    def at_run(self, factor: np.ndarray, group: int) -> Packed:
        """The operands of ``dynamic_linear``, each output times a factor [M]; ``group``: entries of a row that share a range.

        Raises:
            Refusal: weights that are no int8 about zero, or whose scales' blocks are no whole number of groups.
        """
        outputs, entries = self.codes.shape
        centre = 1 << (self.bits - 1)
        if np.any(self.zero != centre) or entries % group or (self.block % group and group != entries):
            raise Refusal("weights in other groups than what they multiply, or about another zero")
        groups, lines = entries // group, -(-outputs // _LINE)
        integers = (self.codes.astype(np.int16) - centre).astype(np.int8).reshape(outputs, groups, group)
        scale = np.repeat(self.scale, max(self.block // group, 1), axis=1)[:, :groups] * factor[:, None]
        terms = np.zeros((lines * _LINE, groups, 2))
        terms[:outputs] = np.stack([scale, scale * integers.sum(2, dtype=np.int64)], axis=-1)
        terms = terms.reshape(lines, _LINE, groups, 2).transpose(0, 2, 3, 1)
        padded = np.zeros((lines * _LINE, groups, -(-group // 4) * 4), np.int8)
        padded[:outputs, :, :group] = integers
        packed = padded.reshape(lines, _LINE, -1, 4).swapaxes(1, 2)
        constants = {"weights": np.ascontiguousarray(packed), "terms": np.ascontiguousarray(terms, np.float32)}
        return Packed(constants, {"group": group}, "dynamic_linear")


@dataclass(frozen=True)
class Coded:
    """A constant behind DequantizeLinear.

    Attributes:
        integers: of ONNX's dtype, as int16.
        least: of that dtype.
        scale: float32, of as many axes as the integers; 1 where it is the same for all.
        zero: as ``scale``; int64.
        axis: along which there are several scales; None for one.
        block: how many neighbours along it share one.
        bits: 4 or 8.
    """

    integers: np.ndarray
    least: int
    scale: np.ndarray
    zero: np.ndarray
    axis: int | None
    block: int
    bits: int

    @property
    def real(self) -> np.ndarray:
        """What they stand for; float32."""
        centred = (self.integers - self._spread(self.zero)).astype(np.float32)
        return np.asarray(centred * self._spread(self.scale), np.float32)

    def _spread(self, array: np.ndarray) -> np.ndarray:
        if self.axis is None or self.block == 1:
            return array
        return np.repeat(array, self.block, self.axis).take(range(self.integers.shape[self.axis]), self.axis)

    def rows(self, outputs: int) -> Rows | None:
        """As a layer's weights, ``outputs`` being the axis of its outputs; None where scales follow the kernel's positions."""
        moved = [np.moveaxis(array, outputs, 0) for array in (self.integers, self.scale, self.zero)]
        integers, scale, zero = moved
        if scale.ndim < 2 or prod(scale.shape[2:]) != 1:
            return None
        count = integers.shape[0]
        positions = prod(integers.shape[2:])
        along = scale.shape[1] > 1
        block = self.block * positions if along else max(prod(integers.shape[1:]), 1)
        flat = [
            np.broadcast_to(one.reshape(one.shape[:2]), (count, one.shape[1])) for one in (scale, zero - self.least)
        ]
        codes = (integers - self.least).reshape(count, -1).astype(np.uint8)
        return Rows(codes, flat[0].astype(np.float64), flat[1].astype(np.float64), block, self.bits)


def coded(integers: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, axis: int, block: int) -> Coded:
    """Read the constants of a DequantizeLinear.

    Args:
        integers: of int4, uint4, int8, uint8 or int32.
        scale: one, one for each element of the axis, or (with ``block``) of as many axes as the integers.
        zero: as ``scale``; None for 0.
        axis: along which there are several scales.
        block: how many neighbours along the axis share a scale; 0 where each has its own.

    Raises:
        Refusal: shapes that do not fit together.
    """
    name = integers.dtype.name
    several = scale.size > 1 or (block > 0 and scale.ndim == integers.ndim)
    axis = axis % max(integers.ndim, 1)
    if block:
        shape = list(integers.shape)
        shape[axis] = -(-shape[axis] // block)
        if list(scale.shape) != shape:
            raise Refusal(f"scales {list(scale.shape)} for integers {list(integers.shape)} in blocks of {block}")
    elif several and (scale.ndim != 1 or scale.size != integers.shape[axis]):
        raise Refusal(f"scales {list(scale.shape)} for axis {axis} of integers {list(integers.shape)}")
    full = scale.shape if block else [-1 if several and index == axis else 1 for index in range(integers.ndim)]
    points = np.zeros(scale.shape, np.int64) if zero is None else zero.astype(np.int64)
    return Coded(
        integers.astype(np.int64), _LEAST.get(name, 0), scale.astype(np.float32).reshape(full), points.reshape(full),
        axis if several else None, block or 1, 4 if name in ("int4", "uint4") else 8,
    )  # fmt: skip
