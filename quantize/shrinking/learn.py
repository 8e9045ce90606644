"""How much to remove from which group, by thresholds that are learned. Needs PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import torch

from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.layers import constant_of
from edgewise.quantize.pruning.matrices import weight_value, weighted_layers
from edgewise.quantize.pruning.torch_ops import run_node
from edgewise.quantize.shrinking.adapt import Budget, Counts, Loads, axes_of, orders_of, width_of
from edgewise.quantize.shrinking.choosing import in_multiples
from edgewise.quantize.shrinking.groups import Group, Span
from edgewise.quantize.shrinking.refit import input_axis
from edgewise.quantize.walking import Arrays
from edgewise.runtime.progress import Progress

_SAMPLES, _BATCH = 64, 4
_STEPS = 96
_RAMP = 0.6  # of the steps: until then the load falls, afterwards it stays
_RATE = 0.03  # how far the thresholds move in a step, in shares of a group, at the start of the cosine
_MOMENTUM = 0.8
_WIDEST, _NARROWEST = 0.15, 0.02  # of the way from kept to removed, in shares of a group
_SLOPE = 0.01  # of a share, to either side: where the load's slope is taken
_HALVINGS = 16
_SEED = 0
_LEAST = 1e-30  # of what is divided by

Tensor = torch.Tensor


def learn(model: ir.Model, groups: Sequence[Group], sparsity: float, budget: Budget, progress: Progress) -> Counts:
    """How many units of each group to remove, so that the layers together take 1 − sparsity of what they took.

    ::

        units by norm   ▂▂▃▄│▅▆▇█      gates 0 0 0 0 │ 1 1 1 1      one threshold a group: it moves where the outputs change
                    threshold                                       less for it, and all together until the load is the budget

    Every group has a threshold on its units, sorted by norm, and units below it are faded out by soft gates on the weights that
    read them. The thresholds follow the gradient of the outputs' error, on samples without labels, along the level of the load,
    which falls from that of the whole network to the budget (progressively), while the gates get steeper. After P. Zhai et al.,
    "LAPP: Layer Adaptive Progressive Pruning for Compressing CNNs from Scratch" (2023), which learns thresholds and weights
    together from labels; here no weight moves, readers are solved anew afterwards (``refit.py``), and there are no bypasses.

    Args:
        model: prepared; not changed.
        groups: of it.
        sparsity: the share of the load to take off.
        budget: what layers take, and samples.
        progress: told how far it is.

    Returns:
        Per group how many of its units with the smallest norms go. A group whose units no weights read loses none.

    Raises:
        QuantizeError: an operator of the network has no gradient here.
    """
    loads = Loads(model, orders_of(groups), budget.load)
    network = _Gated(model, groups)
    thresholds = _Thresholds(loads, network, sparsity, budget.multiple)
    samples = [sample.inputs for sample in budget.data.take(_SAMPLES)]
    try:
        with torch.no_grad():
            wanted = [network(sample, None) for sample in samples]
        drawn = torch.Generator().manual_seed(_SEED)
        for step in range(_STEPS):
            chosen = torch.randint(len(samples), (_BATCH,), generator=drawn).tolist()
            thresholds.step(step, [(samples[index], wanted[index]) for index in chosen])
            progress("learn thresholds", step + 1, _STEPS)
    except NotImplementedError as error:
        raise QuantizeError(
            "cannot learn thresholds",
            where=f"graph {model.graph.name!r}",
            found=str(error),
            expected="operators that can be derived",
            fix="Ask for densities 'sensitivity': groups are then measured one by one",
        ) from error
    return thresholds.counts()


class _Thresholds:
    """A number for each group: which share of its units is gone, softly."""

    def __init__(self, loads: Loads, network: _Gated, sparsity: float, multiple: int) -> None:
        self._loads, self._network, self._multiple = loads, network, multiple
        self._sizes = [len(order) for order in loads.orders]
        self._free = torch.tensor([float(bool(gated)) for gated in network.gated])
        self._values = torch.full((len(self._sizes),), -2 * _WIDEST)
        self._velocity = torch.zeros(len(self._sizes))
        self._whole = loads.of([0] * len(self._sizes))
        self._goal = self._whole * (1 - sparsity)

    def step(self, number: int, batch: Sequence[tuple[Arrays, list[Tensor]]]) -> None:
        """Follow the error's gradient along the level of the load, then go to the level of this step."""
        done = number / _STEPS
        width = _WIDEST * (_NARROWEST / _WIDEST) ** done
        values = self._values.clone().requires_grad_()
        error = torch.stack([_error(self._network(sample, self._gates(values, width)), was) for sample, was in batch])
        (slope,) = torch.autograd.grad(error.mean(), values)
        load = self._load(values, width)
        (level,) = torch.autograd.grad(load, values)
        # What is left of the slope once the part that only trades error for load is gone.
        along = slope - level * (slope @ level) / (level @ level).clamp(min=_LEAST)
        along = along / along.norm().clamp(min=_LEAST)
        self._velocity = _MOMENTUM * self._velocity + (1 - _MOMENTUM) * along * self._free
        rate = _RATE * 0.5 * (1 + float(np.cos(np.pi * done)))
        moved = (self._values - rate * self._velocity * len(self._sizes) ** 0.5).clamp(-2 * _WIDEST, 1)
        part = min(1.0, (number + 1) / (_RAMP * _STEPS))
        self._values = self._shifted(moved, width, self._whole - (self._whole - self._goal) * part)

    def counts(self) -> Counts:
        """The units below the thresholds, which first go up together until the budget is kept."""
        low, high = -1.0, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if self._loads.of(self._hard(middle)) <= self._goal else (middle, high)
        return self._hard(high)

    def _hard(self, shift: float) -> Counts:
        found = []
        for value, size, free in zip((self._values + shift).tolist(), self._sizes, self._free.tolist(), strict=True):
            count = int(np.clip(np.floor(value * size + 0.5), 0, size - 1)) if free else 0
            found.append(in_multiples(count, size, self._multiple))
        return found

    def _gates(self, values: Tensor, width: float) -> list[Tensor]:
        ranks = [(torch.arange(size) + 0.5) / size for size in self._sizes]
        return [
            torch.sigmoid((rank - value) / width) if free else torch.ones_like(rank)
            for rank, value, free in zip(ranks, values, self._free.tolist(), strict=True)
        ]

    def _load(self, values: Tensor, width: float) -> Tensor:
        return _soft_load(self._loads, [1 - gates for gates in self._gates(values, width)])

    def _shifted(self, values: Tensor, width: float, goal: float) -> Tensor:
        """All thresholds up or down by one amount, at which the soft load meets the goal."""
        low, high = -2.0, 2.0
        with torch.no_grad():
            for _ in range(_HALVINGS):
                middle = (low + high) / 2
                low, high = (low, middle) if float(self._load(values + middle, width)) <= goal else (middle, high)
        return values + high


def _soft_load(loads: Loads, removed: Sequence[Tensor]) -> Tensor:
    """What all layers take without these parts of units; it has a slope wherever what a layer takes has one."""
    lost: dict[Span, Tensor] = {}
    for order, parts in zip(loads.orders, removed, strict=True):
        for value, axis in order[0]:
            if value in loads.layers:
                sizes = torch.tensor([float(len(unit[value, axis])) for unit in order])
                lost[value, axis] = lost.get((value, axis), torch.zeros(())) + parts @ sizes / width_of(value, axis)
    total = torch.zeros(())
    for value, layer in loads.layers.items():
        share = torch.ones(())
        for axis in axes_of(layer):
            share = share * (1 - lost.get((value, axis), torch.zeros(())))
        at = float(share.detach())
        slope = (loads.at(layer, min(1.0, at + _SLOPE)) - loads.at(layer, max(0.0, at - _SLOPE))) / (
            min(1.0, at + _SLOPE) - max(0.0, at - _SLOPE)
        )
        total = total + loads.at(layer, at) + slope * (share - at)
    return total


class _Gated:
    """The network in PyTorch, with a factor for each unit on the weights that read it.

    Attributes:
        gated: per group, the weights that read its units.
    """

    def __init__(self, model: ir.Model, groups: Sequence[Group]) -> None:
        self._graph = model.graph
        readers = {(weight_value(layer), input_axis(layer)) for layer in weighted_layers(model.graph)}
        self.gated: list[list[Span]] = [[span for span in group.units[0] if span in readers] for group in groups]
        self._orders = orders_of(groups)
        self._constants: dict[ir.Value, Tensor] = {}
        for node in model.graph:
            for value in node.inputs:
                if value is not None and (array := constant_of(value)) is not None:
                    self._constants[value] = torch.from_numpy(np.array(array))

    def __call__(self, sample: Arrays, gates: Sequence[Tensor] | None) -> list[Tensor]:
        """The float outputs, with each unit times its gate; None: of the whole network."""
        known = dict(self._constants)
        known.update({value: torch.from_numpy(np.array(sample[str(value.name)])) for value in self._graph.inputs})
        for spans, order, factors in zip(self.gated, self._orders, gates or [], strict=gates is not None):
            for value, axis in spans:
                places = [torch.from_numpy(unit[value, axis].astype(np.int64)) for unit in order]
                each = torch.cat([factor.expand(len(at)) for factor, at in zip(factors, places, strict=True)])
                whole = torch.ones(known[value].shape[axis]).index_put((torch.cat(places),), each)
                known[value] = known[value] * whole.reshape([-1 if i == axis else 1 for i in range(known[value].ndim)])
        for node in self._graph:
            given = [None if value is None else known[value] for value in node.inputs]
            known.update(zip(node.outputs, run_node(node, given), strict=False))
        return [known[value] for value in self._graph.outputs if known[value].is_floating_point()]


def _error(made: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    errors = [(a - b).square().sum() / b.square().sum().clamp(min=_LEAST) for a, b in zip(made, wanted, strict=True)]
    return torch.stack(errors).mean()
