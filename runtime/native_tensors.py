"""Inner tensors of an engine of libedgewise: from bytes as they lie in its memory to arrays as ONNX has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

# Of sizes that depend on the inputs: the compiler folds by them, and a trace is read by them.
OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "floor_divide": lambda a, b: a // b,
    "ceil_divide": lambda a, b: -(-a // b),
    "minimum": min,
    "maximum": max,
}


@dataclass(frozen=True)
class InnerTensor:
    """Where a tensor lies when an operator has run; an entry of ``engine.settings.tensors``.

    Attributes:
        op: the operator's number.
        output: which of its outputs.
        offset_bytes: from the start of that output.
        dtype: of the elements in memory.
        axes: for each axis of ONNX its factors, the outermost first: numbers, names of dims of the inputs, or
            ``[operation, left, right]``.
        order: the factors, numbered through all axes, as they lie in memory.
        lane: of 8 bits the factor whose elements lie in fours, innermost; None where none does.
        scale: of 8 bits that stand for real numbers, with ``zero_point``; else None.
        zero_point: the integer that stands for 0.
    """

    op: int
    output: int
    offset_bytes: int
    dtype: str
    axes: list[list[Any]]
    order: list[int]
    lane: int | None = None
    scale: float | None = None
    zero_point: int = 0

    def array(self, memory: np.ndarray, symbols: Mapping[str, int]) -> np.ndarray:
        """What the bytes of the operator's output (uint8) stand for, in ONNX's order; float32 where the tensor is real.

        Raises:
            KeyError, ValueError, TypeError, IndexError: the entry says something impossible.
        """
        axes = [[_size(factor, symbols) for factor in axis] for axis in self.axes]
        sizes = [size for axis in axes for size in axis]
        shape = [-(-sizes[one] // 4) if one == self.lane else sizes[one] for one in self.order]
        stored = [*shape, 4] if self.lane is not None else shape
        dtype = np.dtype(self.dtype)
        kept = memory[self.offset_bytes : self.offset_bytes + prod(stored) * dtype.itemsize].view(dtype).reshape(stored)
        if self.lane is not None:
            at = self.order.index(self.lane)
            shape[at] *= 4
            kept = np.moveaxis(kept, -1, at + 1).reshape(shape).take(range(sizes[self.lane]), axis=at)
        whole = kept.transpose(np.argsort(self.order)).reshape([prod(axis) for axis in axes])
        if self.scale is None:
            return whole
        return (whole.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)


def _size(told: Any, symbols: Mapping[str, int]) -> int:
    if isinstance(told, list):
        kind, left, right = told
        return OPERATIONS[kind](_size(left, symbols), _size(right, symbols))
    return symbols[told] if isinstance(told, str) else int(told)
