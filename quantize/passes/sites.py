"""Tensors whose channels can be scaled against the weights that read them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.layers import Layer, attribute, constant_of
from edgewise.quantize.passes.writing import Writer, before_readers
from edgewise.quantize.plan import Plan
from edgewise.quantize.scaling import Makers

LEAST_GAIN_DB = 0.5
LEAST_GAIN_OF_MUL_DB = 2.0  # one more pass over the tensor has to be worth it


@dataclass(frozen=True)
class Site:
    """A tensor and the layers that read it channel by channel. ``last``: along the last axis, else along axis 1."""

    value: ir.Value
    layers: list[Layer]
    last: bool
    channels: int


def sites_of(plan: Plan) -> list[Site]:
    """Tensors whose quantized readers all see the same channels, in the order of the graph."""
    readers: dict[ir.Value, list[Layer]] = {}
    for layer in plan.layers.values():
        value = layer.node.inputs[layer.activations[0]]
        if layer.weight is not None and value is not None:
            readers.setdefault(value, []).append(layer)
    found = []
    for value, layers in readers.items():
        counts = {_channels(layer) for layer in layers}
        kinds = {layer.node.op_type in ("Gemm", "MatMul") for layer in layers}
        own = all(_only_of(layer, layers) for layer in layers)
        if len(counts) == 1 and len(kinds) == 1 and own and (count := counts.pop()):
            found.append(Site(value, layers, kinds.pop(), count))
    return found


def _channels(layer: Layer) -> int:
    """How many channels a layer reads; 0 when they cannot be scaled one by one."""
    array = np.asarray(constant_of(layer.node.inputs[layer.weight or 0]))
    groups = attribute(layer.node, "group", 1)
    if layer.node.op_type == "Conv":
        depthwise = groups == array.shape[0] and array.shape[1] == 1
        return int(array.shape[1] if groups == 1 else array.shape[0] if depthwise else 0)
    if array.ndim != 2 or layer.channel_axis is None or attribute(layer.node, "transA", 0):
        return 0
    return 0 if layer.node.op_type == "ConvTranspose" else int(array.shape[1 - layer.channel_axis])


def _only_of(layer: Layer, layers: list[Layer]) -> bool:
    """Whether a layer's weights are read by these layers alone, in the same way."""
    value = layer.node.inputs[layer.weight or 0]
    uses = list(value.uses()) if value is not None else []
    return len(uses) == 1 and any(uses[0].node is other.node for other in layers)


def scale(writer: Writer, site: Site, factors: NDArray[np.float64], gain_db: float) -> str:
    """Divide the channels of a site by factors and multiply the weights that read them, where the gain is worth it.

    The factors go into what makes the tensor; where others read it too, linear layers get a Mul.

    Returns:
        how, in words; empty when nothing was done.
    """
    if gain_db < LEAST_GAIN_DB:
        return ""
    makers = Makers(site.last)
    alone = len(list(site.value.uses())) == len(site.layers) and not site.value.is_graph_output()
    if alone and makers.find(site.value, 0, site.channels):
        for absorber in makers.absorbers:
            absorber.divide(writer, factors, site.last)
        how = "in what makes it"
    elif site.last and gain_db >= LEAST_GAIN_OF_MUL_DB:
        _insert_mul(writer, site, factors)
        how = "by a Mul"
    else:
        return ""
    _multiply_weights(writer, site, factors)
    return how


def _multiply_weights(writer: Writer, site: Site, factors: NDArray[np.float64]) -> None:
    for layer in site.layers:
        index = layer.weight or 0
        value = layer.node.inputs[index]
        array = np.asarray(constant_of(value), dtype=np.float32)
        depthwise = attribute(layer.node, "group", 1) > 1
        axis = 1 - (layer.channel_axis or 0) if array.ndim == 2 else 0 if depthwise else 1
        scaled = array * factors.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
        name = f"{value.name}_balanced" if value is not None else "balanced"
        layer.node.replace_input_with(index, writer.constant(name, scaled.astype(np.float32)))


def _insert_mul(writer: Writer, site: Site, factors: NDArray[np.float64]) -> None:
    constant = writer.constant(f"{site.value.name}_factors", (1 / factors).astype(np.float32))
    name = writer.free_name(f"{site.value.name}_Mul")
    output = ir.Value(name=writer.free_name(f"{name}_output"), shape=site.value.shape, type=site.value.type)
    before_readers(writer.graph, site.value, [ir.node("Mul", [site.value, constant], outputs=[output], name=name)])
    for layer in site.layers:
        layer.node.replace_input_with(layer.activations[0], output)
