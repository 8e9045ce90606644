"""How weights are judged: one function per criterion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.pruning.moments import Moments
from edgewise.quantize.pruning.patterns import Pattern, Weights
from edgewise.quantize.pruning.solve import choose, refit

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """One layer to prune.

    Attributes:
        weights: float32 [outputs, positions, inputs].
        pattern: where zeros may lie.
        sparsity: the share to remove.
        moments: of what it reads; None for criteria that need no data.
        biased: whether it has a bias that may change.
    """

    weights: Weights
    pattern: Pattern
    sparsity: float
    moments: Moments | None = None
    biased: bool = False


@dataclass(frozen=True)
class Outcome:
    """New weights, exactly zero where removed, and what is to be added to the bias (None: nothing)."""

    weights: Weights
    bias_shift: Vector | None = None


Criterion = Callable[[Task], Outcome]


def magnitude(task: Task) -> Outcome:
    """Keep the largest weights of the layer (Han et al. 2015). Needs no data."""
    return _masked(task, np.square(task.weights, dtype=np.float64))


def wanda(task: Task) -> Outcome:
    """Keep, for each output, the weights with the largest |weight| · ‖input‖ (Sun et al. 2023); the kept ones do not change."""
    outputs, positions, inputs = task.weights.shape
    moments = _required(task)
    norms = np.stack([np.diag(second) for second in moments.second]).reshape(-1, 1, positions, inputs)
    by_group = np.square(task.weights, dtype=np.float64).reshape(len(norms), -1, positions, inputs)
    scores = (by_group * norms).reshape(task.weights.shape)
    rows = task.pattern.outputs
    parts = [task.pattern.keep(scores[start : start + rows], task.sparsity) for start in range(0, outputs, rows)]
    return Outcome(np.where(np.concatenate(parts), task.weights, np.float32(0)))


def second_order(task: Task) -> Outcome:
    """Remove what the others can make good for, and change the others so that they do (see ``solve.py``).

    The target is the output of the dense layer on the dense network's activations, from the pruned network's ones, and with
    it what a tensor has lost that the output is added to: a block makes good for the blocks before it.
    """
    moments = _required(task)
    outputs, positions, inputs = task.weights.shape
    groups = len(moments.second)
    dense = task.weights.astype(np.float64).reshape(groups, outputs // groups, positions * inputs)
    made, shifts = [], []
    for group, weights in enumerate(dense):
        hessian, target = moments.problem(group, weights, task.biased)
        shape = (len(weights), positions, inputs)
        mask = choose(hessian, target, task.pattern, shape, task.sparsity)
        solved = refit(hessian, target, mask)
        made.append(solved)
        drift = moments.drift_of(group)
        shifts.append(weights @ moments.dense_mean[group] + drift - solved @ moments.mean[group])
    whole = np.concatenate(made).astype(np.float32).reshape(task.weights.shape)
    return Outcome(whole, np.concatenate(shifts) if task.biased else None)


CRITERIA: dict[str, Criterion] = {"magnitude": magnitude, "wanda": wanda, "second_order": second_order}
DATA_FREE = ("magnitude",)


def find_criterion(name: str) -> Criterion:
    """A criterion by name.

    Raises:
        QuantizeError: there is none of that name.
    """
    if name not in CRITERIA:
        raise QuantizeError(
            "unknown criterion",
            where="criterion",
            found=repr(name),
            expected=", ".join(CRITERIA),
            fix="Use one of these",
        )
    return CRITERIA[name]


def _masked(task: Task, scores: NDArray[np.float64]) -> Outcome:
    # Not a product with the mask: that would make -0.0 of negative weights.
    return Outcome(np.where(task.pattern.keep(scores, task.sparsity), task.weights, np.float32(0)))


def _required(task: Task) -> Moments:
    if task.moments is None:
        raise ValueError("the criterion needs calibration data")
    return task.moments
