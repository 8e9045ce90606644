"""Biases that take back what rounding shifts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.biases import Bias, bias_of, limits_behind, outputs_per_channel
from edgewise.quantize.layers import Layer
from edgewise.quantize.plan import Plan
from edgewise.quantize.walking import Arrays, Walk
from edgewise.runtime.progress import Progress, silent

Vector = NDArray[np.float64]
Outputs = Sequence[NDArray[np.float32]]


class CorrectBiases(ir.passes.InPlacePass):
    """Move each bias by the mean difference that rounding made to its channel, layer by layer in the order of the graph.

    Before::

        x ─► Q ─► DQ ─► Conv(w_int8, b) ──► y              mean of y − mean of the float network's y = d ≠ 0

    After::

        x ─► Q ─► DQ ─► Conv(w_int8, b − d) ──► y          d = 0, so later layers do not add it up

    Empirical: both networks compute the calibration samples, the quantized one with the biases corrected so far. Half of
    the samples give the difference and the other half has to agree that the error falls; else the layer stays as it is.
    After M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV 2019), 4.2.

    Args:
        reference: the float network that the plan was made for, with the same names.
        plan: the plan that was carried out on the model.
        samples: inputs by name, one entry a sample.
    """

    def __init__(self, reference: ir.Model, plan: Plan, samples: Sequence[Arrays], progress: Progress = silent) -> None:
        self._reference, self._plan, self._samples, self._progress = reference, plan, samples, progress
        self.corrected: list[dict[str, Any]] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Correct what gains; ``corrected`` tells which layers and how much."""
        found = [(layer, bias) for layer in self._plan.layers.values() if (bias := bias_of(layer))]
        if len(self._samples) < 2 or not found:
            return ir.passes.PassResult(model, modified=False)
        floats, rounded = Walk(self._reference, self._samples), Walk(model, self._samples)
        originals = {node.name: node for node in self._reference.graph}
        for number, (layer, bias) in enumerate(found, start=1):
            want = floats.values([originals[layer.node.name].outputs[0]])[0]
            have = rounded.values([layer.node.outputs[0]])[0]
            added = self._correct(layer, bias, want, have)
            if added is not None and bias.node is layer.node:
                rounded.replace(layer.node.outputs[0], (_shift(layer, array, added) for array in have))
            self._progress("correct biases", number, len(found))
        return ir.passes.PassResult(model, modified=bool(self.corrected))

    def _correct(self, layer: Layer, bias: Bias, want: Outputs, have: Outputs) -> Vector | None:
        means = _means(layer, want, have)
        shift = means[0]
        bounds = limits_behind(layer) if bias.node is layer.node else (-np.inf, np.inf)
        before, after = _errors(layer, want, have, (np.zeros_like(shift), shift), bounds)
        if not after < before:
            return None
        self.corrected.append(
            {"layer": str(layer.node.name), "gain_db": round(float(10 * np.log10(before / after)) if after else 0.0, 2)}
        )
        return bias.add(-means[1])


def _means(layer: Layer, want: Outputs, have: Outputs) -> tuple[Vector, Vector]:
    """Per channel the mean error over every second sample and all positions, and over all samples."""
    sums, counts = [np.zeros(()), np.zeros(())], [0, 0]
    for number, (wanted, mine) in enumerate(zip(want, have, strict=True)):
        error = outputs_per_channel(layer, mine) - outputs_per_channel(layer, wanted)
        sums[number % 2] = sums[number % 2] + error.sum(axis=1, dtype=np.float64)
        counts[number % 2] += error.shape[1]
    return np.asarray(sums[0] / max(counts[0], 1)), np.asarray((sums[0] + sums[1]) / max(sum(counts), 1))


def _errors(
    layer: Layer, want: Outputs, have: Outputs, shifts: tuple[Vector, Vector], bounds: tuple[float, float]
) -> list[float]:
    """The squared errors on the other samples under each shift, behind the activation: what it cuts off need not be right."""
    found = [0.0, 0.0]
    for number, (wanted, mine) in enumerate(zip(want, have, strict=True)):
        if number % 2:
            ours, theirs = outputs_per_channel(layer, mine), outputs_per_channel(layer, wanted)
            for index, shift in enumerate(shifts):
                difference = np.clip(ours - shift[:, None], *bounds) - np.clip(theirs, *bounds)
                found[index] += float(np.sum(np.square(difference, dtype=np.float64)))
    return found


def _shift(layer: Layer, output: NDArray[np.float32], added: Vector) -> NDArray[np.float32]:
    axis = 1 if layer.node.op_type in ("Conv", "ConvTranspose") else output.ndim - 1
    shape = [-1 if index == axis else 1 for index in range(output.ndim)]
    return np.asarray(output + added.reshape(shape), dtype=np.float32)
