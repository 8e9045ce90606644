"""Weights rounded for what the layers read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.biases import rescale_bias
from edgewise.quantize.layers import Layer, constant_of, describe
from edgewise.quantize.plan import Plan
from edgewise.quantize.pruning.biases import addition_behind
from edgewise.quantize.pruning.columns import columns_refusal
from edgewise.quantize.pruning.matrices import as_matrices, from_matrices
from edgewise.quantize.pruning.moments import Moments
from edgewise.quantize.second_order import best_cuts, best_of, error_of, round_together
from edgewise.quantize.stored import Coding, StoredWeights
from edgewise.quantize.walking import Arrays, Walk
from edgewise.runtime.progress import Progress, silent

_Matrix = NDArray[np.float64]
_Problem = tuple[_Matrix, _Matrix]

_PULLS = (0.0, 0.1, 1.0)  # of the Hessian's mean diagonal; held-out samples say which
_MOST_COLUMNS = 8192  # the Hessian of one group of outputs then takes 512 MiB


class RoundByGptq(ir.passes.InPlacePass):
    """Round each layer's weights anew so that its outputs, not its weights, come nearest to the float network's.

    Before::

        x̂ ─► Q ─► DQ ─► Conv(round(w))                 ‖round(w)·x̂ − w·x‖² large

    After::

        x̂ ─► Q ─► DQ ─► Conv(q)                        ‖q·x̂ − w·x‖² smaller, q some steps away from round(w)

    Layer by layer in the order of the graph; x̂ is what the layer reads once the layers before it are rounded, and what a tensor
    has lost that its outputs are added to is made good as far as it can. Below 7 bits
    each output's scale moves too, by the factor that fits best; zeros stay zeros. Solved in closed form, without training
    (``second_order.py``): E. Frantar et al., "GPTQ" (ICLR 2023). A linear layer of 7 bits and more aims at w·x̂ instead: what the
    layers before it lost is more than its fine steps can make good, and a few large tokens would say how. A layer stays
    as it was when the error on samples that were held out does not fall, when other layers share its weights, or when there
    are too few samples.

    Args:
        reference: the float network that the plan was made for, with the same names.
        plan: the plan that was carried out on the model.
        samples: inputs by name, one entry a sample.
        only_linear: leave convolutions as they are.
    """

    def __init__(
        self,
        reference: ir.Model,
        plan: Plan,
        samples: Sequence[Arrays],
        progress: Progress = silent,
        *,
        only_linear: bool = False,
    ) -> None:
        self._reference, self._plan, self._samples, self._progress = reference, plan, samples, progress
        self._only_linear = only_linear
        self.rounded: list[dict[str, Any]] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Round what gains; ``rounded`` tells which layers and how much."""
        originals = {node.name: describe(node) for node in self._reference.graph if node.name in self._names()}
        floats, rounded = Walk(self._reference, self._samples), Walk(model, self._samples)
        chosen = {
            node: stored for node, stored in self._plan.stored.items() if is_linear(node) or not self._only_linear
        }
        for number, (node, stored) in enumerate(chosen.items(), start=1):
            layer = originals[node.name]
            reason = solve_refusal(layer) if stored.alone else "other layers share its weights"
            if not reason:
                alone = is_linear(node) and not stored.coding.coarse
                seen, unseen = self._gather(layer, node, None if alone else floats, rounded)
                reason = seen.refusal() if unseen.rows else f"there are too few samples: {len(self._samples)}"
                if not reason:
                    self._round(layer, node, stored, seen, unseen)
            if reason:
                self._plan.notes.append(f"{node.op_type} {node.name!r}: its weights are rounded without data: {reason}")
            self._progress("round weights", number, len(chosen))
        return ir.passes.PassResult(model, modified=bool(self.rounded))

    def _names(self) -> set[str | None]:
        return {node.name for node in self._plan.stored}

    def _gather(self, layer: Layer, node: ir.Node, floats: Walk | None, rounded: Walk) -> tuple[Moments, Moments]:
        """Moments of all samples, and of every second one; without ``floats`` as if the layers before had lost nothing."""
        index = layer.activations[0]
        others = self._added(layer, node) if floats is not None else None
        read, *after = rounded.values([input_of(node, index), *([others[1]] if others else [])])
        wanted = [input_of(layer.node, index), *([others[0]] if others else [])]
        dense, *before = [read] if floats is None else floats.values(wanted)
        every, second = Moments(layer), Moments(layer)
        for number, now in enumerate(read):
            then = now if floats is None else dense[number]
            for moments in (every, second) if number % 2 else (every,):
                moments.update(now, then)
                if others:
                    moments.lose(now, before[0][number] - after[0][number])
        return every, second

    def _added(self, layer: Layer, node: ir.Node) -> tuple[ir.Value, ir.Value] | None:
        """What the layer's outputs are added to in both networks, where the addition reads what is there before the layer."""
        found = addition_behind(layer)
        nodes = [] if found is None or node.graph is None else list(node.graph)
        twin = next((each for each in nodes if found is not None and each.name == found[0].name), None)
        if found is None or twin is None:
            return None
        before, after = found[0].inputs[found[1]], twin.inputs[found[1]]
        maker = None if after is None else after.producer()
        if before is None or after is None or (maker is not None and nodes.index(maker) > nodes.index(node)):
            return None  # integers become floats right before the addition: the walk is not there yet
        return before, after

    def _round(self, layer: Layer, node: ir.Node, stored: StoredWeights, seen: Moments, unseen: Moments) -> None:
        weights, old, steps = (
            as_matrices(layer, np.asarray(array, dtype=np.float32))
            for array in (constant_of(layer.node.inputs[layer.weight or 0]), stored.integers(), stored.steps())
        )
        groups = len(seen.second)
        parts = [np.split(array.reshape(len(array), -1).astype(np.float64), groups) for array in (weights, old, steps)]
        solved = [
            _solve(seen.problem(group, dense, False), unseen.problem(group, dense, False), stored.coding, dense, *now)
            for group, (dense, *now) in enumerate(zip(*parts, strict=True))
        ]
        before, after = (sum(errors) for errors in zip(*((each.before, each.after) for each in solved), strict=True))
        if after >= before:
            return
        factors = np.concatenate([found.factors for found in solved])
        if stored.coding.may_cut:
            if not rescale_bias(self._plan.layers[node], factors):
                return
            stored.rescale(factors)
        integers: NDArray[np.float32] = np.concatenate([found.integers for found in solved]).reshape(weights.shape)
        stored.write(np.rint(from_matrices(layer, integers, stored.integers().shape)).astype(np.int8))
        self.rounded.append({"layer": str(layer.node.name), "error": round(float(after / before), 4)})


@dataclass(frozen=True)
class _Solved:
    """Integers, factors on the scales of the outputs, and the squared error on held-out samples, before and after."""

    integers: _Matrix
    factors: _Matrix
    before: float
    after: float


def _solve(every: _Problem, unseen: _Problem, coding: Coding, dense: _Matrix, old: _Matrix, steps: _Matrix) -> _Solved:
    zeros, top = dense == 0, coding.top
    half = every[0] - unseen[0], every[1] - unseen[1]
    if min(float(np.trace(hessian)) for hessian, _ in (every, half, unseen)) <= 0:  # a group that reads zeros only
        return _Solved(old, np.ones(len(steps)), 0.0, 0.0)
    share = _best_pull(half, unseen, dense, steps, top) if coding.coarse else 0.0
    half, every = _pull(half, dense, share), _pull(every, dense, share)
    factors = best_cuts(*half, steps, top, zeros) if coding.may_cut else np.ones(len(steps))
    cut = steps * factors[:, None]
    tried = round_together(*half, cut, top, zeros)
    least = error_of(*unseen, best_of(*unseen))
    before, after = (error_of(*unseen, weights) - least for weights in (old * steps, tried * cut))
    if after >= before:
        return _Solved(old, np.ones(len(steps)), before, before)
    return _Solved(round_together(*every, cut, top, zeros), factors, before, after)


def _best_pull(half: _Problem, unseen: _Problem, dense: _Matrix, steps: _Matrix, top: int) -> float:
    pulls = [_pull(half, dense, share) for share in _PULLS]
    found = [error_of(*unseen, round_together(*each, steps, top, dense == 0, sweeps=0) * steps) for each in pulls]
    return _PULLS[int(np.argmin(found))]


def _pull(problem: _Problem, dense: _Matrix, share: float) -> _Problem:
    """A pull towards the dense weights: few samples say nothing about many directions."""
    hessian, target = problem
    weight = share * float(np.mean(np.diag(hessian)))
    return hessian + weight * np.eye(len(hessian)), target + weight * dense


def is_linear(node: ir.Node) -> bool:
    """Whether a layer is a product with a matrix."""
    return node.op_type in ("Gemm", "MatMul")


def solve_refusal(layer: Layer) -> str:
    """Why a layer has no matrix of what it reads; empty when it has one."""
    array = constant_of(layer.node.inputs[layer.weight or 0])
    if layer.node.op_type in ("Gemm", "MatMul") and (array is None or array.ndim != 2 or layer.weight != 1):
        return "its weights are no matrix on the right"
    if array is not None and array[0].size > _MOST_COLUMNS and layer.node.op_type == "Conv":
        return "it has too many weights per output"
    return columns_refusal(layer)


def input_of(node: ir.Node, index: int) -> ir.Value:
    """An input that is there."""
    value = node.inputs[index]
    if value is None:
        raise ValueError(node.name)
    return value
