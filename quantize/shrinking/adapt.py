"""How much to remove from which group, in small steps, by what it costs and what it saves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgewise.quantize.layers import Layer, constant_of
from edgewise.quantize.pruning.matrices import weight_value, weighted_layers
from edgewise.quantize.pruning.sensitivity import Probe
from edgewise.quantize.shrinking.choosing import Reader, by_error, by_norm, in_multiples
from edgewise.quantize.shrinking.compensate import compensated, constants_of
from edgewise.quantize.shrinking.groups import Group, Indices, Span
from edgewise.quantize.shrinking.refit import input_axis
from edgewise.runtime.progress import Progress

if TYPE_CHECKING:
    from edgewise.runtime.data import Dataset

_STEPS = 12  # towards the budget
_TRIES = 16  # amounts that are tried of a group in one step, at most

Load = Callable[[Layer, float], float]
Counts = list[int]


@dataclass(frozen=True)
class Budget:
    """Whether and how groups differ: ``load`` is what a layer takes at a share of its weights, ``data`` the samples that judge.

    ``learned``: by thresholds (``learn.py``), not by trying. ``multiple``: what the units that stay of a group are a multiple of.
    """

    load: Load
    data: Dataset
    learned: bool = False
    multiple: int = 1


def adapt(
    model: ir.Model,
    groups: Sequence[Group],
    readers: Sequence[Sequence[Reader]],
    sparsity: float,
    budget: Budget,
    progress: Progress,
) -> Counts:
    """How many units of each group to remove, so that the layers together take 1 − sparsity of what they took.

    ::

        load ──► step 1: each group alone, cut until the step is saved ─► the one that changes the outputs least ──► step 2 ─► …

    After T.-J. Yang et al., "NetAdapt" (ECCV 2018), as D. Wofk et al. use it in "FastDepth" (ICRA 2019); there each step is
    trained and judged by labels, here the network's outputs on samples judge, and nothing is trained.

    Args:
        model: prepared; the same afterwards as before.
        groups: of it.
        readers: per group the layers that will make good for what goes; none where they will not.
        sparsity: the share of the load to take off.
        budget: what layers take, and samples.
        progress: told how far it is.

    Returns:
        Per group how many of its units go: those whose loss its readers make good for best, else those with the smallest norms. Less is saved than asked for where one unit is left of each.
    """
    search = _Search(model, groups, readers, budget)
    start = search.load(search.counts)
    goal = start * (1 - sparsity)
    for step in range(1, _STEPS + 1):
        search.take(start - (start - goal) * step / _STEPS)
        progress("adapt", step, _STEPS)
    search.restore()
    return search.counts


Order = list[dict[Span, Indices]]  # the units of a group, those that go first in front


def orders_of(groups: Sequence[Group]) -> list[Order]:
    """The units of each group, the smallest norm first."""
    return [[group.units[unit] for unit in _ranked(group, [])] for group in groups]


def _ranked(group: Group, readers: Sequence[Reader]) -> list[int]:
    if not readers:
        return [int(unit) for unit in np.argsort(by_norm(group), kind="stable")]
    ranked = by_error(readers, len(group.units) - 1)
    return ranked + sorted(set(range(len(group.units))) - set(ranked))


class Loads:
    """What the layers take when units are gone.

    Attributes:
        orders: of the units of each group, in which they go.
        layers: by their weights.
    """

    def __init__(self, model: ir.Model, orders: list[Order], load: Load) -> None:
        self.orders = orders
        self.layers = {weight_value(layer): layer for layer in weighted_layers(model.graph)}
        self._load = load

    def of(self, counts: Counts) -> float:
        """What all layers take without these units."""
        lost: dict[Span, set[int]] = {}
        for unit in self.gone(counts):
            for span, at in unit.items():
                if span[0] in self.layers:
                    lost.setdefault(span, set()).update(at.tolist())
        total = 0.0
        for value, layer in self.layers.items():
            share = 1.0
            for axis in axes_of(layer):
                share *= 1 - len(lost.get((value, axis), ())) / width_of(value, axis)
            total += self.at(layer, share)
        return total

    def at(self, layer: Layer, share: float) -> float:
        """What a layer takes at a share of its weights."""
        return self._load(layer, share)

    def gone(self, counts: Counts) -> Order:
        """The units that go."""
        return [unit for order, count in zip(self.orders, counts, strict=True) for unit in order[:count]]


def axes_of(layer: Layer) -> list[int]:
    """Of a layer's weights, the axes that get shorter: outputs and inputs."""
    return sorted(axis for axis in {layer.channel_axis, input_axis(layer)} if axis is not None)


def width_of(value: ir.Value, axis: int) -> int:
    """How long a constant is along an axis."""
    return int(np.asarray(constant_of(value)).shape[axis])


class _Search:
    def __init__(
        self, model: ir.Model, groups: Sequence[Group], readers: Sequence[Sequence[Reader]], budget: Budget
    ) -> None:
        self._readers, self._ranks = readers, [_ranked(*each) for each in zip(groups, readers, strict=True)]
        orders = [[group.units[unit] for unit in ranks] for group, ranks in zip(groups, self._ranks, strict=True)]
        self._loads, self._probe = Loads(model, orders, budget.load), Probe(model, budget.data)
        self.counts: Counts = [0] * len(groups)
        self._multiple = budget.multiple
        self._kept = {value: value.const_value for value in self._constants()}

    def take(self, goal: float) -> None:
        """Remove from one group until the load is at most ``goal``: from the one with which the outputs change least."""
        if self.load(self.counts) <= goal:
            return
        found: list[tuple[float, Counts]] = []
        for index in range(len(self._loads.orders)):
            counts = self._enough(index, goal)
            if counts is not None:
                found.append((self._error(counts), counts))
        if found:
            self.counts = min(found, key=lambda each: each[0])[1]

    def _enough(self, index: int, goal: float) -> Counts | None:
        """The fewest units of a group, beside those that are gone, that reach the goal."""
        most = len(self._loads.orders[index]) - 1
        step = max(1, len(self._loads.orders[index]) // _TRIES)
        size, multiple = len(self._loads.orders[index]), self._multiple
        tried = range(self.counts[index] + step, most + 1, step)
        for count in dict.fromkeys(in_multiples(each, size, multiple) for each in tried):
            counts = [*self.counts[:index], count, *self.counts[index + 1 :]]
            if self.load(counts) <= goal:
                return counts
        return None

    def load(self, counts: Counts) -> float:
        """What all layers take without these units."""
        return self._loads.of(counts)

    def _error(self, counts: Counts) -> float:
        """Of the outputs without these units, for which their readers make good: zeros in all of their constants compute the same."""
        arrays = {value: tensor.numpy().copy() for value, tensor in self._kept.items() if tensor is not None}
        gone = [ranks[:count] for ranks, count in zip(self._ranks, counts, strict=True)]
        arrays |= compensated(self._readers, gone)
        for unit in self._loads.gone(counts):
            for (value, axis), at in unit.items():
                if value in arrays:
                    np.moveaxis(arrays[value], axis, 0)[at] = 0
        for value, array in arrays.items():
            value.const_value = ir.tensor(array, name=value.name)
        error = self._probe.error()
        self.restore()
        return error

    def restore(self) -> None:
        """Put all constants back."""
        for value, tensor in self._kept.items():
            value.const_value = tensor

    def _constants(self) -> dict[ir.Value, None]:
        spans = [span for order in self._loads.orders for span in order[0]]
        own = [value for value, _ in spans if constant_of(value) is not None]
        return dict.fromkeys([*own, *constants_of(self._readers)])
