"""Which weights of a layer to remove, and what the others become, so that its outputs change least."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgewise.quantize.pruning.patterns import Mask, Pattern

Matrix = NDArray[np.float64]

_STEPS = 80
_PENALTY, _GROWTH = 0.02, 1.08  # of the first step, relative to the Hessian's mean eigenvalue; per step


def choose(hessian: Matrix, target: Matrix, pattern: Pattern, shape: tuple[int, ...], sparsity: float) -> Mask:
    """What to keep, so that min ‖X·W − Y‖² over the kept weights is low.

    The alternating directions method of multipliers: one step solves the least squares with a pull towards the pattern,
    the next projects onto the pattern, and the pull grows. Whole blocks and groups are judged together with everything
    that can make good for them; on layers small enough to compare, the error equals that of removing blocks one by one
    with an update of the rest after each (optimal brain surgeon). After X. Meng et al., "ALPS: Improved Optimization for
    Highly Sparse One-Shot Pruning" (NeurIPS 2024).

    Args:
        hessian: XᵀX, positive definite, float64 [columns, columns].
        target: YᵀX, float64 [outputs, columns].
        pattern: where zeros may lie.
        shape: [outputs, positions, inputs], whose last two make the columns.
        sparsity: the share to remove.

    Returns:
        bool [outputs, columns].
    """
    # Columns of like size, so that one pull suits all of them.
    size = np.sqrt(np.diag(hessian))
    found = np.linalg.eigh(hessian / size / size[:, None])
    eigenvalues, vectors = (part.astype(np.float32) for part in found)  # enough for a choice, and twice as fast
    scaled, back = (target / size).astype(np.float32), vectors.T
    kept = ((scaled @ vectors) / eigenvalues) @ back
    multipliers = np.zeros_like(scaled)
    mask = np.ones(kept.shape, np.bool_)
    penalty = _PENALTY
    for _ in range(_STEPS):
        free = (((scaled - multipliers + penalty * kept) @ vectors) / (eigenvalues + penalty)) @ back
        wish = free + multipliers / penalty
        mask = pattern.keep(np.square(wish).reshape(shape), sparsity).reshape(kept.shape)
        kept = np.where(mask, wish, np.float32(0))
        multipliers += penalty * (free - kept)
        penalty *= _GROWTH
    return mask


def refit(hessian: Matrix, target: Matrix, mask: Mask) -> Matrix:
    """The least squares over the weights that stay: W·H = T on the mask, zeros elsewhere.

    This is where optimal brain surgeon ends when its updates are carried to the end (Hassibi and Stork 1993; Frantar and
    Alistarh, "SparseGPT", 2023, compute an approximation of it in one sweep). Of an output's weights the fewer are solved
    for: those that stay, or by the inverse what those that go have to take along.
    """
    inverse = np.linalg.inv(hessian)
    weights = target @ inverse
    for row, keep in enumerate(mask):
        kept, gone = np.flatnonzero(keep), np.flatnonzero(~keep)
        if len(kept) <= len(gone):
            weights[row, kept] = np.linalg.solve(hessian[np.ix_(kept, kept)], target[row, kept])
        else:
            weights[row] -= np.linalg.solve(inverse[np.ix_(gone, gone)], weights[row, gone]) @ inverse[gone]
    return np.where(mask, weights, 0.0)
