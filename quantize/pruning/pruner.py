"""Changing the weights of the chosen layers of one model, in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from edgewise.quantize.layers import Layer, constant_of
from edgewise.quantize.pruning.biases import bias_of, shift_bias
from edgewise.quantize.pruning.criteria import Criterion, Task
from edgewise.quantize.pruning.densities import Item
from edgewise.quantize.pruning.matrices import as_matrices, from_matrices, input_value, weight_value
from edgewise.quantize.pruning.moments import Moments
from edgewise.quantize.pruning.patterns import Pattern
from edgewise.quantize.pruning.selection import refusal
from edgewise.quantize.pruning.sensitivity import Curve, Probe, grid, share_out
from edgewise.quantize.pruning.walk import walk
from edgewise.runtime.progress import Progress

if TYPE_CHECKING:
    from edgewise.runtime.data import Dataset

Shares = Mapping[str, float]
Load = Callable[[Layer, float], float]


def item_of(layer: Layer) -> Item:
    """A layer as the rules for densities see it, named after its weights."""
    value = weight_value(layer)
    return Item(str(value.name), as_matrices(layer, np.asarray(constant_of(value), np.float32)))


def size_of(layer: Layer, density: float) -> float:
    """How many weights a layer has left at a density."""
    return float(np.asarray(constant_of(weight_value(layer))).size * density)


@dataclass
class Pruner:
    """One model, one pattern, one criterion; ``refused`` and ``done`` are lines of the report."""

    model: ir.Model
    pattern: Pattern
    judge: Criterion
    looks: bool
    refused: list[dict[str, str]] = field(default_factory=list)
    done: list[dict[str, Any]] = field(default_factory=list)

    def run(self, layers: Sequence[Layer], shares: Shares, data: Dataset | None, progress: Progress) -> None:
        """Prune each layer by its share, in the order of the graph; later ones see what earlier ones became."""

        def visit(layer: Layer, moments: Moments | None) -> None:
            if moments is not None and (reason := moments.refusal()):
                self.refused.append(refusal(layer, reason))
                return
            self._apply(layer, moments, shares[str(weight_value(layer).name)])
            self.done.append(_entry(layer))

        if data is not None and self.looks:
            walk(self.model, self.model.clone(), layers, data, visit, task="prune", progress=progress)
            return
        for number, layer in enumerate(layers):
            visit(layer, None)
            progress("prune", number + 1, len(layers))

    def sensitivity(
        self, layers: Sequence[Layer], sparsity: float, data: Dataset, load: Load, progress: Progress
    ) -> Shares:
        """A share per layer: each is pruned alone, to several densities, and the network's outputs are compared.

        Args:
            layers: those that will be pruned.
            sparsity: over all of them.
            data: calibration samples.
            load: what a layer weighs at a density; the sum is what uniform densities would leave.
            progress: told how far it is.
        """
        probe = Probe(self.model, data)
        curves: dict[str, Curve] = {}

        def visit(layer: Layer, moments: Moments | None) -> None:
            if moments is None or not moments.refusal():
                probe.reach(input_value(layer))
                curves[str(weight_value(layer).name)] = self._curve(layer, moments, grid(sparsity), load, probe)

        if self.looks:
            walk(self.model, None, layers, data, visit, task="measure sensitivity", progress=progress)
        else:
            for number, layer in enumerate(layers):
                visit(layer, None)
                progress("measure sensitivity", number + 1, len(layers))
        budget = sum(load(layer, 1 - sparsity) for layer in layers if str(weight_value(layer).name) in curves)
        shared = dict(zip(curves, share_out(list(curves.values()), budget), strict=True))
        return {str(weight_value(layer).name): shared.get(str(weight_value(layer).name), 0.0) for layer in layers}

    def _curve(
        self, layer: Layer, moments: Moments | None, sparsities: Sequence[float], load: Load, probe: Probe
    ) -> Curve:
        value = weight_value(layer)
        bias = bias_of(layer, len(item_of(layer).weights))
        kept = [(each, each.const_value) for each in (value, bias) if each is not None]
        curve = Curve([0.0], [0.0], [load(layer, 1.0)])
        for sparsity in sparsities:
            self._apply(layer, moments, sparsity)
            curve.sparsities.append(sparsity)
            curve.errors.append(probe.error())
            curve.loads.append(load(layer, 1 - sparsity))
            for each, tensor in kept:
                each.const_value = tensor
        return curve

    def _apply(self, layer: Layer, moments: Moments | None, sparsity: float) -> None:
        value = weight_value(layer)
        array = np.asarray(constant_of(value), np.float32)
        matrices = as_matrices(layer, array)
        bias = bias_of(layer, len(matrices))
        outcome = self.judge(Task(matrices, self.pattern, sparsity, moments, bias is not None))
        value.const_value = ir.tensor(from_matrices(layer, outcome.weights, array.shape), name=value.name)
        if bias is not None and outcome.bias_shift is not None:
            shift_bias(bias, outcome.bias_shift)


def _entry(layer: Layer) -> dict[str, Any]:
    value = weight_value(layer)
    array = np.asarray(constant_of(value))
    density = float(np.count_nonzero(array) / max(array.size, 1))
    return {"name": layer.node.name, "op": layer.node.op_type, "weight": value.name, "density": density}
