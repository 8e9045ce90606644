"""How much to remove from each layer, so that a given share of all weights goes: rules that need no data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.pruning.patterns import NOfM, Pattern, Weights

SENSITIVITY, LEARNED = "sensitivity", "learned"
MEASURED = (SENSITIVITY, LEARNED)  # they need data
_MOST = 0.98  # of a layer: one that loses everything cuts the network in two


@dataclass(frozen=True)
class Item:
    """A layer that is to be pruned: its weights as float32 [outputs, positions, inputs]."""

    name: str
    weights: Weights


Rule = Callable[[Sequence[Item], Pattern, float], list[float]]


def uniform(items: Sequence[Item], pattern: Pattern, sparsity: float) -> list[float]:
    """The same share from every layer."""
    return [sparsity] * len(items)


def erk(items: Sequence[Item], pattern: Pattern, sparsity: float) -> list[float]:
    """Erdős-Rényi-kernel (Evci et al. 2020): a layer keeps weights in proportion to the sum of its dims, not their product.

    ::

        density ∝ (outputs + inputs + positions per axis …) / (outputs · inputs · positions), at most 1
    """
    sizes = np.array([item.weights.size for item in items], np.float64)
    raw = np.array([sum(item.weights.shape) for item in items], np.float64) / sizes
    dense = np.zeros(len(items), np.bool_)
    while True:
        room = (1 - sparsity) * sizes.sum() - sizes[dense].sum()
        factor = max(room, 0.0) / max(float((raw * sizes)[~dense].sum()), 1e-30)
        over = ~dense & (raw * factor > 1)
        if not np.any(over):
            break
        dense |= over
    densities = np.where(dense, 1.0, raw * factor)
    return [float(min(1 - density, _MOST)) for density in densities]


def globally(items: Sequence[Item], pattern: Pattern, sparsity: float) -> list[float]:
    """One threshold over all layers (LAMP, Lee et al. 2021): what each unit adds to what is left of its layer without it.

    The score of a unit is its sum of squares over the sum of those of all units that are not smaller: how far the layer's
    output is bent when the unit is the next to go.
    """
    scores = [_lamp(pattern.units(np.square(item.weights, dtype=np.float64))) for item in items]
    sizes = [np.full(score.size, item.weights.size / score.size) for item, score in zip(items, scores, strict=True)]
    order = np.argsort(np.concatenate(scores), kind="stable")
    removed = np.cumsum(np.concatenate(sizes)[order]) <= sparsity * sum(item.weights.size for item in items) + 0.5
    owner = np.repeat(np.arange(len(items)), [score.size for score in scores])[order][removed]
    counts = np.bincount(owner, minlength=len(items))
    return [float(min(count / score.size, _MOST)) for count, score in zip(counts, scores, strict=True)]


def _lamp(energies: NDArray[np.floating]) -> NDArray[np.float64]:
    flat = energies.reshape(-1).astype(np.float64)
    order = np.argsort(flat, kind="stable")
    left = np.cumsum(flat[order][::-1])[::-1]
    scores = np.empty_like(flat)
    scores[order] = flat[order] / np.maximum(left, np.finfo(np.float64).tiny)
    return scores


RULES: dict[str, Rule] = {"uniform": uniform, "erk": erk, "global": globally}
DENSITIES = (*RULES, *MEASURED)


def check_densities(name: str, pattern: Pattern, *, shrinks: bool = False) -> None:
    """Whether layers may differ as asked; ``shrinks``: whole units go, so that tensors shrink.

    Raises:
        QuantizeError: an unknown rule, other than uniform densities for N:M, which has one density, or thresholds on units
            where none go.
    """
    if name not in DENSITIES:
        raise _refused(repr(name), ", ".join(DENSITIES))
    if name == LEARNED and not shrinks:
        raise _refused(f"{name!r} with weights that become zero", "a pattern whose tensors shrink, or another rule")
    if isinstance(pattern, NOfM) and name != "uniform":
        raise _refused(f"{name!r} with {pattern.n}:{pattern.m}", "uniform: the pattern has one density")


def _refused(found: str, expected: str) -> QuantizeError:
    return QuantizeError(
        "cannot share the sparsity out", where="densities", found=found, expected=expected, fix="Use one of these"
    )
