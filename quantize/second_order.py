"""Rounding the weights of one layer together: what one loses in rounding, the others make good."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

_BLOCK = 128  # columns whose updates to the columns behind them are applied at once
_SWEEPS = 3
CUTS = (1.0, 0.7, 0.8, 0.9, 0.95, 1.05, 1.1, 1.2)  # 1 first: of equals it wins


def round_together(
    hessian: Matrix, target: Matrix, steps: Matrix, top: int, zeros: NDArray[np.bool_], sweeps: int = _SWEEPS
) -> Matrix:
    """Integers Q for which tr((Q∘steps − W)·H·(Q∘steps − W)ᵀ) is low, with W·H = ``target``.

    One sweep over the columns rounds each and moves the error of it onto those that are still free (E. Frantar et al.,
    "GPTQ", ICLR 2023), columns of large inputs first. Then a few sweeps round each weight again where the others, all of
    them rounded by now, want it (coordinate descent: the error only falls).

    Args:
        hessian: positive definite, float64 [columns, columns].
        target: float64 [outputs, columns].
        steps: the scale of each weight, float64 [outputs, columns].
        top: the greatest integer.
        zeros: weights that stay zero, [outputs, columns].
        sweeps: of coordinate descent, at most.

    Returns:
        whole numbers, float64 [outputs, columns].
    """
    order = np.argsort(-np.diag(hessian), kind="stable")
    ordered = hessian[np.ix_(order, order)]
    weights = best_of(ordered, target[:, order])
    scales, fixed = steps[:, order], zeros[:, order]
    integers = _one_sweep(ordered, weights, scales, top, fixed)
    _descend(ordered, integers, target[:, order], scales, top, fixed, sweeps)
    found = np.empty_like(integers)
    found[:, order] = integers
    return found


def best_cuts(hessian: Matrix, target: Matrix, steps: Matrix, top: int, zeros: NDArray[np.bool_]) -> Matrix:
    """Per output the factor on its steps with which one sweep ends nearest to the target.

    Returns:
        float64 [outputs], some of ``CUTS``.
    """
    count = len(CUTS)
    several = np.concatenate([steps * factor for factor in CUTS])
    order = np.argsort(-np.diag(hessian), kind="stable")
    ordered, goal = hessian[np.ix_(order, order)], target[:, order]
    weights = np.tile(best_of(ordered, goal), (count, 1))
    found = _one_sweep(ordered, weights, several[:, order], top, np.tile(zeros[:, order], (count, 1)))
    found *= several[:, order]
    errors = np.sum((found @ ordered - 2 * np.tile(goal, (count, 1))) * found, axis=1).reshape(count, -1)
    return np.asarray(np.asarray(CUTS)[np.argmin(errors, axis=0)], dtype=np.float64)


def best_of(hessian: Matrix, target: Matrix) -> Matrix:
    """The weights of least error when none is rounded: W·H = ``target``."""
    return np.asarray(np.linalg.solve(hessian, target.T).T, dtype=np.float64)


def error_of(hessian: Matrix, target: Matrix, weights: Matrix) -> float:
    """The squared error of the outputs, less what no weights can change."""
    return float(np.sum((weights @ hessian - 2 * target) * weights))


def _one_sweep(hessian: Matrix, weights: Matrix, steps: Matrix, top: int, fixed: NDArray[np.bool_]) -> Matrix:
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T
    weights = weights.copy()
    integers = np.zeros_like(weights)
    columns = weights.shape[1]
    for start in range(0, columns, _BLOCK):
        end = min(start + _BLOCK, columns)
        errors = np.zeros((len(weights), end - start))
        for column in range(start, end):
            rounded = np.clip(np.rint(weights[:, column] / steps[:, column]), -top, top)
            integers[:, column] = np.where(fixed[:, column], 0.0, rounded)
            left = weights[:, column] - integers[:, column] * steps[:, column]
            errors[:, column - start] = left / upper[column, column]
            weights[:, column + 1 : end] -= np.outer(errors[:, column - start], upper[column, column + 1 : end])
        weights[:, end:] -= errors @ upper[start:end, end:]
    return integers


def _descend(
    hessian: Matrix, integers: Matrix, target: Matrix, steps: Matrix, top: int, fixed: NDArray[np.bool_], sweeps: int
) -> None:
    """Round each column anew, given all others, until a sweep changes nothing; in place."""
    slope = (integers * steps) @ hessian - target
    for _ in range(sweeps):
        changed = 0
        for column in range(integers.shape[1]):
            wish = integers[:, column] - slope[:, column] / (hessian[column, column] * steps[:, column])
            better = np.where(fixed[:, column], 0.0, np.clip(np.rint(wish), -top, top))
            moved = (better - integers[:, column]) * steps[:, column]
            rows = np.flatnonzero(moved)
            integers[:, column] = better
            slope[rows] += np.outer(moved[rows], hessian[column])
            changed += len(rows)
        if not changed:
            return
