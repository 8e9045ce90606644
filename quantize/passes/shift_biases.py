"""Biases that take back what rounded weights shift, by what the float network reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgewise.quantize.biases import bias_of
from edgewise.quantize.layers import Layer, constant_of, describe
from edgewise.quantize.passes.round_by_gptq import input_of, solve_refusal
from edgewise.quantize.plan import Plan
from edgewise.quantize.pruning.matrices import as_matrices
from edgewise.quantize.pruning.moments import Moments
from edgewise.quantize.stored import StoredWeights
from edgewise.quantize.walking import Arrays, Walk
from edgewise.runtime.progress import Progress, silent


class ShiftBiases(ir.passes.InPlacePass):
    """Take the mean of the weights' rounding error out of each bias: the analytic bias correction.

    Before::

        x ─► Q ─► DQ ─► Conv(w + e, b) ──► y            mean of y off by e·E[x]

    After::

        x ─► Q ─► DQ ─► Conv(w + e, b − e·E[x]) ──► y

    E[x] is the mean of what the layer reads in the float network, per input and kernel position, so padding counts. Nothing of the
    quantized network is computed, and no layer's correction depends on another's: faster than ``CorrectBiases`` and blind to what
    rounded activations shift. M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV
    2019), 4.2, where E[x] comes from the batch normalization before the layer; here it is measured.
    """

    def __init__(self, reference: ir.Model, plan: Plan, samples: Sequence[Arrays], progress: Progress = silent) -> None:
        self._reference, self._plan, self._samples, self._progress = reference, plan, samples, progress
        self.shifted: list[str] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Shift every bias that can take it; ``shifted`` names the layers."""
        names = {node.name for node in self._plan.stored}
        originals = {node.name: describe(node) for node in self._reference.graph if node.name in names}
        floats = Walk(self._reference, self._samples)
        for number, (node, stored) in enumerate(self._plan.stored.items(), start=1):
            original, bias = originals[node.name], bias_of(self._plan.layers[node])
            if bias is not None and not solve_refusal(original):
                bias.add(-self._shift(original, stored, floats))
                self.shifted.append(str(node.name))
            self._progress("shift biases", number, len(self._plan.stored))
        return ir.passes.PassResult(model, modified=bool(self.shifted))

    def _shift(self, original: Layer, stored: StoredWeights, floats: Walk) -> np.ndarray:
        """Per output channel what the rounding error makes of the mean input."""
        moments = Moments(original)
        for array in floats.values([input_of(original.node, original.activations[0])])[0]:
            moments.update(array, array)
        now = (stored.integers().astype(np.float32) * stored.steps()).astype(np.float32)
        dense = np.asarray(constant_of(original.node.inputs[original.weight or 0]), dtype=np.float32)
        error = as_matrices(original, now).astype(np.float64) - as_matrices(original, dense)
        means = moments.mean
        parts = np.split(error.reshape(len(error), -1), len(means))
        return np.concatenate([part @ mean for part, mean in zip(parts, means, strict=True)])
