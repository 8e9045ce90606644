"""The second moments of what a layer reads, gathered sample by sample: the Hessian of its squared output error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgewise.quantize.layers import Layer
from edgewise.quantize.pruning.columns import columns, output_rows

Matrix = NDArray[np.float64]
Columns = NDArray[np.float32]

_DAMPING = 0.01  # of the mean of the diagonal, as in SparseGPT
_TOGETHER = 4096  # rows that are multiplied at once: products of few rows are slow


class Moments:
    """What a layer reads now (X), beside what it read in the dense network (X₀).

    Where the layer's outputs are added to another tensor, it may be told what that tensor has lost (D): its outputs can
    make good for a part of it.
    """

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self.rows = 0
        self._sums: list[Matrix] = []
        self._pending: list[tuple[Columns, Columns]] = []
        self._drift: tuple[Matrix, Matrix] | None = None
        self._held = 0

    def update(self, now: Columns, dense: Columns) -> None:
        """See one more sample; ``dense`` may be the same array."""
        own = columns(self._layer, now)
        self._pending.append((own, own if dense is now else columns(self._layer, dense)))
        self.rows += own.shape[1]
        self._held += own.shape[1]
        if self._held >= _TOGETHER:
            self._reduce()

    def lose(self, read: Columns, lost: Columns) -> None:
        """See what a sample has lost of the tensor that the outputs are added to; after ``update`` with the same sample."""
        wanted = output_rows(self._layer, lost, read)
        own = self._pending[-1][0] if self._pending else columns(self._layer, read)
        if wanted is None or wanted.shape[:2] != own.shape[:2]:
            return
        found = (wanted.transpose(0, 2, 1) @ own).astype(np.float64), wanted.sum(axis=1).astype(np.float64)
        self._drift = found if self._drift is None else (self._drift[0] + found[0], self._drift[1] + found[1])

    def drift_of(self, group: int) -> Matrix | float:
        """The mean of the rows of D in one group, float64 [outputs]; 0 where nothing was told."""
        return 0.0 if self._drift is None else self._drift[1][group] / self.rows

    def _reduce(self) -> None:
        if not self._pending:
            return
        own, before = (np.concatenate(parts, axis=1) for parts in zip(*self._pending, strict=True))
        alike = all(a is b for a, b in self._pending)
        turned = own.transpose(0, 2, 1)
        second = turned @ own
        new = [second, second if alike else turned @ before, own.sum(axis=1), before.sum(axis=1)]
        self._pending, self._held = [], 0
        self._sums = (
            [a + b for a, b in zip(self._sums, new, strict=True)]
            if self._sums
            else [part.astype(np.float64) for part in new]
        )

    @property
    def second(self) -> Matrix:
        """XᵀX, float64 [groups, columns, columns]."""
        return self._total(0)

    @property
    def cross(self) -> Matrix:
        """XᵀX₀: with it, a layer makes good what the layers before it have lost."""
        return self._total(1)

    @property
    def mean(self) -> Matrix:
        """Of the rows of X, float64 [groups, columns]."""
        return self._total(2) / self.rows

    @property
    def dense_mean(self) -> Matrix:
        """Of the rows of X₀."""
        return self._total(3) / self.rows

    def _total(self, part: int) -> Matrix:
        self._reduce()
        return self._sums[part]

    def refusal(self) -> str:
        """Why a solve on these moments would mean nothing; empty when it would not."""
        width = self.second.shape[-1]
        if self.rows < width:
            return f"too few samples: {self.rows} rows of calibration data for {width} weights per output"
        return "" if np.trace(self.second.sum(axis=0)) > 0 else "it reads zeros only, on every calibration sample"

    def problem(
        self, group: int, dense: Matrix, centred: bool, kept: NDArray[np.intp] | None = None
    ) -> tuple[Matrix, Matrix]:
        """The Hessian H and the target T of one group: the weights W that come nearest to the dense outputs have W·H = T.

        Args:
            group: of the convolution.
            dense: the dense weights, float64 [outputs, columns].
            centred: leave the means to the bias.
            kept: which of the dense columns the layer still reads; None: all of them.
        """
        second, cross = self.second[group], self.cross[group]
        if centred:
            second = second - self.rows * np.outer(self.mean[group], self.mean[group])
            cross = cross - self.rows * np.outer(self.mean[group], self.dense_mean[group])
        damping = _DAMPING * float(np.mean(np.diag(self.second[group])))
        target = dense @ cross.T + damping * (dense if kept is None else dense[:, kept])
        if self._drift is not None:
            lost, sums = self._drift[0][group], self._drift[1][group]
            target += lost - np.outer(sums, self.mean[group]) if centred else lost
        return second + damping * np.eye(len(second)), target
