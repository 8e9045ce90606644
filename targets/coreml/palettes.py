"""Weights of few values: found again in a plain array, so that they can be stored as indices into tables of values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_WIDTHS = {16: (1, 2, 4, 6, 8), 18: (1, 2, 3, 4, 6, 8)}
_MOST = 256
_MOST_CODES = 1 << 16
_VECTORS = (1, 2, 4, 8)
_FIRST_GROUPED = 18


@dataclass(frozen=True)
class Palette:
    """``weight[..., i·v + j, ...] = table[group of i, ..., index, j]`` along one axis, v the length of a vector.

    Attributes:
        indices: uint8, the weight's shape with its axis divided by the length of the vectors; 0 where ``holes`` are.
        table: float32 [groups along each axis…, 2^bits, vector].
        bits: of an index.
        axis: along which vectors and groups run.
    """

    indices: NDArray[np.uint8]
    table: NDArray[np.float32]
    bits: int
    axis: int

    @property
    def vector(self) -> int:
        """Weights per index."""
        return int(self.table.shape[-1])

    def bytes(self, element_bytes: int, holes: int = 0) -> float:
        """What it takes in the file; ``holes`` of the indices are not stored."""
        return (self.indices.size - holes) * self.bits / 8 + self.table.size * element_bytes


@dataclass(frozen=True)
class _Coded:
    """Rows along the axis as whole numbers that stand for vectors of weights: codes [rows, rest], vectors [codes, length]."""

    codes: NDArray[np.int64]
    vectors: NDArray[np.float32]

    def paired(self) -> _Coded | None:
        """Two neighbouring rows as one; None when there are too many different ones."""
        if len(self.codes) % 2:
            return None
        keys, codes = np.unique(self.codes[::2] * len(self.vectors) + self.codes[1::2], return_inverse=True)
        if len(keys) > _MOST_CODES:
            return None
        vectors = np.concatenate(
            [self.vectors[keys // len(self.vectors)], self.vectors[keys % len(self.vectors)]], axis=1
        )
        return _Coded(codes.reshape(-1, self.codes.shape[1]), vectors)


def find_palette(
    weight: NDArray[np.float32], axis: int, ios: int, element_bytes: int, skip_zeros: bool = False
) -> Palette | None:
    """The smallest palette that gives the very same weight; None when it has too many values.

    Before iOS 18 there is one table per tensor; then also tables per group of channels along ``axis`` and vectors along it.

    Args:
        weight: float32.
        axis: of the output channels.
        ios: deployment target, 16 or above.
        element_bytes: of a value in the table.
        skip_zeros: zeros get no index (they are stored as holes).
    """
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    if len(np.unique(rows[0])) > _MOST + 1:
        return None
    values, codes = np.unique(rows, return_inverse=True)
    if len(values) > _MOST_CODES:
        return None
    coded = _Coded(codes.reshape(rows.shape), values[:, None])
    found: list[tuple[float, _Coded, int, int]] = []
    for coding in _codings(coded) if ios >= _FIRST_GROUPED and not skip_zeros else [coded]:
        for size, bits in _fits(coding, ios, skip_zeros):
            tables = len(coding.codes) // size * 2**bits * coding.vectors.shape[1] * element_bytes
            found.append((coding.codes.size * bits / 8 + tables, coding, size, bits))
    if not found:
        return None
    _, coded, size, bits = min(found, key=lambda entry: entry[0])
    return _tabled(coded, size, bits, weight.shape, axis, skip_zeros)


def _codings(coded: _Coded) -> Iterator[_Coded]:
    """Single weights, then vectors of two, of four and so on."""
    longer: _Coded | None = coded
    for _ in _VECTORS:
        if longer is None:
            return
        yield longer
        longer = longer.paired()


def _fits(coded: _Coded, ios: int, skip_zeros: bool) -> Iterator[tuple[int, int]]:
    """Rows per table and bits of an index, for each size of group that a palette can have."""
    rows, count = len(coded.codes), len(coded.vectors)
    seen = np.zeros((rows, count), bool)
    seen[np.arange(rows)[:, None], coded.codes] = True
    if skip_zeros:
        seen[:, ~coded.vectors.any(axis=1)] = False
    for size in _sizes(rows) if ios >= _FIRST_GROUPED else [rows]:
        most = int(seen.reshape(rows // size, size, count).any(axis=1).sum(axis=1).max())
        widths = [bits for bits in _WIDTHS[18 if ios >= _FIRST_GROUPED else 16] if 2**bits >= most]
        if widths:
            yield size, widths[0]


def _sizes(rows: int) -> list[int]:
    powers = [2**power for power in range(8) if rows % 2**power == 0 and 2**power < rows]
    return [rows, *reversed(powers)]


def _tabled(coded: _Coded, size: int, bits: int, shape: tuple[int, ...], axis: int, skip_zeros: bool) -> Palette:
    rows, vector = coded.codes.shape[0], coded.vectors.shape[1]
    groups = rows // size
    table = np.zeros((groups, 2**bits, vector), np.float32)
    indices = np.zeros(coded.codes.shape, np.uint8)
    zero = np.asarray(~coded.vectors.any(axis=1), dtype=bool)
    for group in range(groups):
        part = slice(group * size, (group + 1) * size)
        used = np.unique(coded.codes[part])
        used = used[~zero[used]] if skip_zeros else used
        place = np.zeros(len(coded.vectors), np.uint8)
        place[used] = np.arange(len(used))
        table[group, : len(used)] = coded.vectors[used]
        indices[part] = place[coded.codes[part]]
    rest = [dim for other, dim in enumerate(shape) if other != axis]
    lead = [groups if other == axis else 1 for other in range(len(shape))]
    moved = np.moveaxis(indices.reshape(rows, *rest), 0, axis)
    return Palette(np.ascontiguousarray(moved), table.reshape(*lead, 2**bits, vector), bits, axis)
