"""Biases in int32."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.layers import Layer, attribute, constant_of
from edgewise.quantize.passes.writing import Writer
from edgewise.quantize.plan import Plan

_LARGEST = 2**30  # leaves the other half of int32 to the products that are added


class QuantizeBiases(ir.passes.InPlacePass):
    """Store biases as int32 on the scale of the accumulator, so that the engine adds them before it rescales.

    Before::

        b: f32[O] ──► Conv

    After::

        b_int32: i32[O] ─► DQ(scale f32[O] = input scale × weight scale, axis 0) ─► Conv

    A bias stays float, with a note, when it is no constant float32 vector with one entry per output channel, or when Gemm
    multiplies it (alpha or beta other than 1). Runs after QuantizeWeights, before QuantizeActivations.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace the biases of the plan's layers."""
        writer = Writer(model.graph)
        modified = False
        for layer in self._plan.layers.values() if self._plan.spec.quantize_bias else ():
            if layer.bias is None or self._plan.spec.weights_only:
                continue
            if reason := bias_refusal(layer):
                self._plan.notes.append(f"{layer.node.op_type} {layer.node.name!r}: its bias stays in float: {reason}")
                continue
            self._replace(writer, layer, layer.bias)
            modified = True
        return ir.passes.PassResult(model, modified)

    def _replace(self, writer: Writer, layer: Layer, index: int) -> None:
        value = layer.node.inputs[index]
        bias = np.ravel(np.asarray(constant_of(value), dtype=np.float64))
        scales = per_bias_entry(self._plan.stored[layer.node].scales, layer, bias.size)
        scales = (np.float32(self._plan.input_scale(layer)) * scales).astype(np.float32)
        name = value.name if value is not None else ""
        stored = (
            writer.constant(f"{name}_int32", np.rint(bias / scales).astype(np.int32)),
            writer.constant(f"{name}_scale", scales),
            writer.constant(f"{name}_zero_point", np.zeros(bias.size, dtype=np.int32)),
        )
        dequantize = writer.dequantize(*stored, axis=0)
        writer.graph.insert_before(layer.node, dequantize)
        layer.node.replace_input_with(index, dequantize.outputs[0])


def bias_refusal(layer: Layer) -> str:
    """Why a layer's bias cannot be an int32 vector; empty when it can."""
    bias = constant_of(layer.node.inputs[layer.bias or 0])
    if bias is None:
        return "it is computed in the graph"
    if bias.dtype != np.float32 or not np.all(np.isfinite(bias)):
        return f"it is {bias.dtype}, not finite float32"
    if any(layer.node.attributes[name].as_float() != 1 for name in ("alpha", "beta") if name in layer.node.attributes):
        return "Gemm multiplies it, or the product it is added to"
    if bias.size != output_channels(layer) or bias.shape[-1:] != (bias.size,):
        return f"its shape is {list(bias.shape)}, not one entry for each of {output_channels(layer)} output channels"
    return ""


def output_channels(layer: Layer) -> int:
    """How many output channels a layer with weights has."""
    weights = layer.node.inputs[layer.weight or 0]
    # The shape, for by now the weights may be int8 behind a DequantizeLinear.
    dim = weights.shape[layer.channel_axis or 0] if weights is not None and weights.shape is not None else 0
    size = dim if isinstance(dim, int) else 0
    return size * (attribute(layer.node, "group", 1) if layer.node.op_type == "ConvTranspose" else 1)


def per_bias_entry(scales: NDArray[np.float32], layer: Layer, size: int) -> NDArray[np.float32]:
    """Weight scales, one for each entry of the bias; ConvTranspose repeats them for each group."""
    return np.tile(scales, size // scales.size)


def least_weight_scales(layer: Layer, input_scale: float, per_channel: bool) -> NDArray[np.float64]:
    """The smallest weight scales under which the layer's bias fits int32: dead channels have tiny weights but a bias.

    Returns:
        shape [channels] or [].
    """
    if layer.bias is None or bias_refusal(layer):
        return np.zeros(())
    bias = np.abs(np.ravel(np.asarray(constant_of(layer.node.inputs[layer.bias]), dtype=np.float64)))
    groups = attribute(layer.node, "group", 1) if layer.node.op_type == "ConvTranspose" else 1
    largest = bias.reshape(groups, -1).max(axis=0) if per_channel else bias.max()
    return np.asarray(largest / (input_scale * _LARGEST))
