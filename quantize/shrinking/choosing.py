"""Which units of a group go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgewise.quantize.layers import Layer, constant_of
from edgewise.quantize.pruning.matrices import as_matrices, weight_value
from edgewise.quantize.shrinking.groups import Group, Indices

Matrix = NDArray[np.float64]


def removed_count(group: Group, sparsity: float, multiple: int = 1) -> int:
    """How many units go: one at least stays, for without any the network is cut in two; those that stay are a multiple."""
    count = min(round(sparsity * len(group.units)), len(group.units) - 1)
    return in_multiples(count, len(group.units), multiple)


def in_multiples(count: int, size: int, multiple: int) -> int:
    """The fewest units to remove, at least ``count``, so that a multiple stays; fewer, where that would leave none.

    >>> [in_multiples(count, 32, 8) for count in (0, 1, 8, 9, 31)], in_multiples(3, 8, 8), in_multiples(3, 12, 8)
    ([0, 8, 8, 16, 24], 0, 4)
    """
    if count == 0 or size <= multiple:
        return 0
    return size - max(multiple, (size - count) // multiple * multiple)


def by_norm(group: Group) -> NDArray[np.float64]:
    """Per unit, the sum of its L1 norms over the layers that make it, each relative to its layer's mean (Li et al. 2017)."""
    total = np.zeros(len(group.units))
    for maker in group.makers:
        norms = np.abs(_matrices(maker), dtype=np.float64).sum(axis=(1, 2))
        span = (weight_value(maker), maker.channel_axis or 0)
        own = np.array([norms[unit[span]].sum() if span in unit else 0.0 for unit in group.units])
        total += own / max(norms.mean(), np.finfo(np.float32).tiny)
    return total


@dataclass
class Reader:
    """A layer that reads units, as a least-squares problem.

    Attributes:
        hessian: XᵀX of what it reads in the dense network, damped, float64 [columns, columns].
        weights: float64 [outputs, columns].
        columns: per unit, which columns are its own.
        layer: it.
        mean: of what it reads, float64 [columns].
    """

    hessian: Matrix
    weights: Matrix
    columns: Sequence[Indices]
    layer: Layer
    mean: NDArray[np.float64]


def by_error(readers: Sequence[Reader], count: int) -> list[int]:
    """The units to remove, one after the other: each time the one without which the readers' outputs change least.

    What stays makes good for what goes, so the error of removing the columns S of a reader is that of optimal brain surgeon
    for groups (Hassibi and Stork 1993; E. Kurtić et al., "ZipLM", NeurIPS 2023)::

        tr(W_S · (H⁻¹_SS)⁻¹ · W_Sᵀ)

    relative to ‖X·W‖², summed over the readers.
    """
    states = [_Elimination(reader) for reader in readers]
    left = list(range(len(readers[0].columns)))
    gone: list[int] = []
    for _ in range(count):
        errors = sum(state.errors(left) for state in states)
        unit = left.pop(int(np.argmin(errors)))
        gone.append(unit)
        for state in states:
            state.remove(unit)
    return gone


class _Elimination:
    """One reader's inverse Hessian and weights while units go."""

    def __init__(self, reader: Reader) -> None:
        self._inverse = np.linalg.inv(reader.hessian)
        self._weights = reader.weights.copy()
        self._columns = reader.columns
        self._size = max(float(np.sum((reader.weights @ reader.hessian) * reader.weights)), 1e-30)

    def errors(self, units: Sequence[int]) -> NDArray[np.float64]:
        """Of removing each of the units next."""
        if all(len(self._columns[unit]) == 1 for unit in units):
            at = np.concatenate([self._columns[unit] for unit in units])
            return np.asarray(np.square(self._weights[:, at]).sum(axis=0) / np.diag(self._inverse)[at] / self._size)
        return np.array([self._error(self._columns[unit]) for unit in units]) / self._size

    def _error(self, at: Indices) -> float:
        if not at.size:
            return 0.0
        own = self._weights[:, at]
        return float(np.sum(np.linalg.solve(self._inverse[np.ix_(at, at)], own.T).T * own))

    def remove(self, unit: int) -> None:
        """Take a unit out: the other weights and the inverse become those of the smaller problem."""
        at = self._columns[unit]
        if not at.size:
            return
        gain = np.linalg.solve(self._inverse[np.ix_(at, at)], self._inverse[at])
        self._weights -= self._weights[:, at] @ gain
        self._inverse -= self._inverse[:, at] @ gain
        # What is gone must not come back as noise.
        self._weights[:, at] = 0
        self._inverse[at] = 0
        self._inverse[:, at] = 0
        self._inverse[at, at] = 1


def _matrices(layer: Layer) -> NDArray[np.float32]:
    return as_matrices(layer, np.asarray(constant_of(weight_value(layer)), np.float32))
