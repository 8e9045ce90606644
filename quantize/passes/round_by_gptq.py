"""Weights rounded for what the layers read."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.layers import Layer, constant_of, describe
from edgewise.quantize.plan import Plan
from edgewise.quantize.pruning.columns import columns_refusal
from edgewise.quantize.pruning.matrices import as_matrices, from_matrices
from edgewise.quantize.pruning.moments import Moments
from edgewise.quantize.second_order import best_of, error_of, round_together
from edgewise.quantize.stored import StoredWeights
from edgewise.quantize.walking import Arrays, Walk
from edgewise.runtime.progress import Progress, silent

_MOST_COLUMNS = 8192  # the Hessian of one group of outputs then takes 512 MiB


class RoundByGptq(ir.passes.InPlacePass):
    """Round each layer's weights anew so that its outputs, not its weights, come nearest to the float network's.

    Before::

        x̂ ─► Q ─► DQ ─► Conv(round(w))                 ‖round(w)·x̂ − w·x‖² large

    After::

        x̂ ─► Q ─► DQ ─► Conv(q)                        ‖q·x̂ − w·x‖² smaller, q some steps away from round(w)

    Layer by layer in the order of the graph; x̂ is what the layer reads once the layers before it are rounded. Scales stay
    as they are, and zeros stay zeros. Solved in closed form, without training (``second_order.py``): E. Frantar et al.,
    "GPTQ" (ICLR 2023). A layer stays as it was when the error does not fall, when other layers share its weights, or when
    there are too few samples.
    """

    def __init__(self, reference: ir.Model, plan: Plan, samples: list[Arrays], progress: Progress = silent) -> None:
        self._reference, self._plan, self._samples, self._progress = reference, plan, samples, progress
        self.rounded: list[dict[str, Any]] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Round what gains; ``rounded`` tells which layers and how much."""
        originals = {node.name: describe(node) for node in self._reference.graph if node.name in self._names()}
        floats, integers = Walk(self._reference, self._samples), Walk(model, self._samples)
        for number, (node, stored) in enumerate(self._plan.stored.items(), start=1):
            layer = originals[node.name]
            if stored.alone and not _refusal(layer):
                index = layer.activations[0]
                moments = Moments(layer)
                values = [_input(layer.node, index)], [_input(node, index)]
                for before, now in zip(floats.values(values[0])[0], integers.values(values[1])[0], strict=True):
                    moments.update(now, before)
                self._round(layer, stored, moments)
            self._progress("round weights", number, len(self._plan.stored))
        return ir.passes.PassResult(model, modified=bool(self.rounded))

    def _names(self) -> set[str | None]:
        return {node.name for node in self._plan.stored}

    def _round(self, layer: Layer, stored: StoredWeights, moments: Moments) -> None:
        if moments.refusal():
            return
        weights, old, steps = (
            as_matrices(layer, np.asarray(array, dtype=np.float32))
            for array in (constant_of(layer.node.inputs[layer.weight or 0]), stored.integers(), stored.steps())
        )
        shape, groups = weights.shape, len(moments.second)
        parts = [np.split(array.reshape(len(array), -1).astype(np.float64), groups) for array in (weights, old, steps)]
        found, before, after = [], 0.0, 0.0
        for group, (dense, held, step) in enumerate(zip(*parts, strict=True)):
            hessian, target = moments.problem(group, dense, centred=False)
            new = round_together(hessian, target, step, stored.coding.top, dense == 0)
            least = error_of(hessian, target, best_of(hessian, target))
            errors = [error_of(hessian, target, integers * step) - least for integers in (held, new)]
            found.append(new if errors[1] < errors[0] else held)
            before, after = before + errors[0], after + min(errors)
        merged: NDArray[np.float32] = np.concatenate(found).reshape(shape).astype(np.float32)
        stored.write(np.rint(from_matrices(layer, merged, stored.integers().shape)).astype(np.int8))
        if after < before:
            self.rounded.append({"layer": str(layer.node.name), "error": round(after / before, 4)})


def _refusal(layer: Layer) -> str:
    array = constant_of(layer.node.inputs[layer.weight or 0])
    if layer.node.op_type in ("Gemm", "MatMul") and (array is None or array.ndim != 2 or layer.weight != 1):
        return "its weights are no matrix on the right"
    if array is not None and array[0].size > _MOST_COLUMNS and layer.node.op_type == "Conv":
        return "it has too many weights per output"
    return columns_refusal(layer)


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    if value is None:
        raise ValueError(node.name)
    return value
