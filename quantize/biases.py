"""Where the bias of a layer is, in a graph that is quantized already, and adding to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.layers import Layer, attribute, constant_of

_LARGEST = 2**30  # as in QuantizeBiases: the other half of int32 is for the products


@dataclass(frozen=True)
class Bias:
    """A constant vector that is added to a layer's output channels.

    Attributes:
        node, index: who reads it, float or behind a DequantizeLinear.
        entries: how many output channels there are.
    """

    node: ir.Node
    index: int
    entries: int

    def values(self) -> NDArray[np.float32]:
        """What is added now, float32 [entries]."""
        value = self.node.inputs[self.index]
        maker = value.producer() if value is not None else None
        if maker is None:
            return np.asarray(constant_of(value), dtype=np.float32).reshape(-1)
        scale = np.asarray(constant_of(maker.inputs[1]), dtype=np.float32)
        return np.asarray(np.asarray(constant_of(maker.inputs[0]), dtype=np.float32) * scale)

    def add(self, delta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add to each entry, in float or in steps of the accumulator; returns what was really added, shape [entries]."""
        value = self.node.inputs[self.index]
        maker = value.producer() if value is not None else None
        if maker is None:
            return _store(value, delta, 1.0)
        return _store(maker.inputs[0], delta, np.asarray(constant_of(maker.inputs[1]), dtype=np.float64))


def _store(
    value: ir.Value | None, delta: NDArray[np.float64], scale: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    array = np.asarray(constant_of(value))
    old = array.astype(np.float64)
    new = old + (delta / scale).reshape(array.shape)
    if np.issubdtype(array.dtype, np.integer):
        new = np.clip(np.rint(new), -_LARGEST, _LARGEST)
    new = new.astype(array.dtype)
    if value is not None:
        value.const_value = ir.tensor(new, name=value.name)
    return np.asarray(((new.astype(np.float64) - old) * scale).reshape(-1))


def bias_of(layer: Layer) -> Bias | None:
    """The layer's own bias, or the constant vector that an Add right behind it adds; None without one of its own."""
    own = _candidates(layer)
    return next((bias for bias in own if _is_own(bias)), None)


def rescale_bias(layer: Layer, factors: NDArray[np.float64]) -> bool:
    """Multiply the scales of a layer's int32 bias, as those of its weights are; its integers change in turn.

    Returns:
        whether the bias still fits int32; else nothing was done. A bias in float needs nothing.
    """
    value = None if layer.bias is None else layer.node.inputs[layer.bias]
    maker = value.producer() if value is not None else None
    if maker is None:
        return True
    stored, scale = maker.inputs[0], maker.inputs[1]
    integers = np.rint(np.asarray(constant_of(stored), dtype=np.float64) / factors)
    if np.any(np.abs(integers) > _LARGEST) or stored is None or scale is None:
        return False
    scales = (np.asarray(constant_of(scale), dtype=np.float64) * factors).astype(np.float32)
    stored.const_value = ir.tensor(integers.astype(np.int32), name=stored.name)
    scale.const_value = ir.tensor(scales, name=scale.name)
    return True


def limits_behind(layer: Layer) -> tuple[float, float]:
    """What the activation behind a float layer (or behind the Add of its bias) lets through: a Relu cuts at zero."""
    bias = bias_of(layer)
    last = layer.node if bias is None else bias.node
    uses = list(last.outputs[0].uses())
    relu = len(uses) == 1 and uses[0].node.op_type == "Relu" and not last.outputs[0].is_graph_output()
    return (0.0 if relu else -np.inf), np.inf


def outputs_per_channel(layer: Layer, output: NDArray[np.float32]) -> NDArray[np.float32]:
    """A layer's output as [output channel, position]."""
    axis = 1 if layer.node.op_type in ("Conv", "ConvTranspose") else output.ndim - 1
    return np.moveaxis(output, axis, 0).reshape(output.shape[axis], -1)


def _candidates(layer: Layer) -> Iterator[Bias]:
    node = layer.node
    count = _output_channels(layer)
    if layer.bias is not None:
        plain = all(node.attributes[name].as_float() == 1 for name in ("alpha", "beta") if name in node.attributes)
        yield from [Bias(node, layer.bias, count)] if plain else []
        return
    uses = list(node.outputs[0].uses())
    if len(uses) == 1 and not node.outputs[0].is_graph_output() and uses[0].node.op_type == "Add":
        yield Bias(uses[0].node, 1 - uses[0].idx, count)


def _output_channels(layer: Layer) -> int:
    weights = layer.node.inputs[layer.weight or 0]
    dim = weights.shape[layer.channel_axis or 0] if weights is not None and weights.shape is not None else 0
    size = dim if isinstance(dim, int) else 0
    return size * (attribute(layer.node, "group", 1) if layer.node.op_type == "ConvTranspose" else 1)


def _is_own(bias: Bias) -> bool:
    """Whether a constant of one entry per channel is there, in the right place, for this reader alone."""
    value = bias.node.inputs[bias.index]
    if value is not None and (maker := value.producer()) is not None:
        value = maker.inputs[0] if maker.op_type == "DequantizeLinear" else None
    array = constant_of(value)
    if value is None or array is None or len(list(value.uses())) != 1:
        return False
    vector = array.ndim == 1 or bias.node.op_type in ("Gemm", "Add")
    return array.size == bias.entries and vector and array.shape[-1:] == (array.size,)
