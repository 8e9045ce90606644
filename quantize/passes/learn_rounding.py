"""Weights rounded for what comes out behind the activation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.adaround import LayerProblem, learn_rounding
from edgewise.quantize.biases import bias_of, limits_behind
from edgewise.quantize.layers import Layer, constant_of, describe
from edgewise.quantize.passes.round_by_gptq import input_of, solve_refusal
from edgewise.quantize.plan import Plan
from edgewise.quantize.pruning.columns import columns
from edgewise.quantize.pruning.matrices import as_matrices, from_matrices
from edgewise.quantize.stored import StoredWeights
from edgewise.quantize.walking import Arrays, Walk
from edgewise.runtime.progress import Progress, silent

_HELD_OUT = 8  # every eighth sample judges what was learned from the others
_ROWS = 1 << 14  # of the layer's inputs, over all samples


class LearnRounding(ir.passes.InPlacePass):
    """Learn for each weight of a layer whether to round it up or down, with the activation behind the layer in view.

    Before::

        x̂ ─► Q ─► DQ ─► Conv(q) ─► Relu ──► ŷ          ‖ŷ − y‖² as rounding left it

    After::

        x̂ ─► Q ─► DQ ─► Conv(q′) ─► Relu ──► ŷ         ‖ŷ − y‖² smaller; q′ differs from q by at most one step

    Layer by layer in the order of the graph, on what each layer reads once those before it are rounded; runs after the
    passes that choose integers and scales. M. Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization"
    (ICML 2020). A layer stays as it was when the error on held-out samples does not fall.
    """

    def __init__(self, reference: ir.Model, plan: Plan, samples: Sequence[Arrays], progress: Progress = silent) -> None:
        self._reference, self._plan, self._samples, self._progress = reference, plan, samples, progress
        self.learned: list[dict[str, Any]] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Learn layer after layer; ``learned`` tells where it gained and how much."""
        names = {node.name for node in self._plan.stored}
        originals = {node.name: describe(node) for node in self._reference.graph if node.name in names}
        floats, rounded = Walk(self._reference, self._samples), Walk(model, self._samples)
        for number, (node, stored) in enumerate(self._plan.stored.items(), start=1):
            layer = originals[node.name]
            if stored.alone and not solve_refusal(layer) and len(self._samples) >= _HELD_OUT:
                index = layer.activations[0]
                before = floats.values([input_of(layer.node, index)])[0]
                now = rounded.values([input_of(node, index)])[0]
                self._learn(layer, self._plan.layers[node], stored, before, now)
            self._progress("learn rounding", number, len(self._plan.stored))
        return ir.passes.PassResult(model, modified=bool(self.learned))

    def _learn(
        self,
        layer: Layer,
        now: Layer,
        stored: StoredWeights,
        dense_in: Sequence[np.ndarray],
        rounded_in: Sequence[np.ndarray],
    ) -> None:
        weights, old, steps = (
            as_matrices(layer, np.asarray(array, dtype=np.float32))
            for array in (constant_of(layer.node.inputs[layer.weight or 0]), stored.integers(), stored.steps())
        )
        rows = max(1, _ROWS // len(dense_in))
        read, wished = ([columns(layer, array, rows) for array in arrays] for arrays in (rounded_in, dense_in))
        groups = len(read[0])
        dense, start, scale = (
            np.ascontiguousarray(array.reshape(groups, len(array) // groups, -1)) for array in (weights, old, steps)
        )
        biases = _bias(layer, groups), _bias(now, groups)
        limits = limits_behind(layer)
        problems = []
        for part in (slice(None), slice(None, None, _HELD_OUT)):
            chosen = [index for index in range(len(read)) if (index % _HELD_OUT == 0) == (part.step is not None)]
            given, wanted = (np.concatenate([arrays[i] for i in chosen], axis=1) for arrays in (read, wished))
            target = np.clip(wanted @ dense.transpose(0, 2, 1) + biases[0], *limits)
            problems.append(LayerProblem(given, target, biases[1], limits))
        found = learn_rounding(problems[0], dense, start, scale, stored.coding.top)
        before, after = (problems[1].error(integers * scale) for integers in (start, found))
        if after >= before:
            return
        stored.write(
            np.rint(from_matrices(layer, found.reshape(weights.shape), stored.integers().shape)).astype(np.int8)
        )
        self.learned.append({"layer": str(layer.node.name), "error": round(after / before, 4)})


def _bias(layer: Layer, groups: int) -> NDArray[np.float32]:
    """A layer's bias as it computes now, float32 [groups, 1, outputs of a group]."""
    bias = bias_of(layer)
    return np.zeros((groups, 1, 1), np.float32) if bias is None else bias.values().reshape(groups, 1, -1)
