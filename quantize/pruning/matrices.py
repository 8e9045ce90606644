"""Weights of any layer seen as weights[output, position, input], and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgewise.quantize.layers import WEIGHTED, Layer, attribute, constant_of, describe

if TYPE_CHECKING:
    import onnx_ir as ir

Weights = NDArray[np.float32]


def weighted_layers(graph: ir.Graph) -> list[Layer]:
    """The layers of the main graph, in its order, with constant weights."""
    found = [describe(node) for node in graph if node.op_type in WEIGHTED and not node.domain]
    return [layer for layer in found if layer.weight is not None]


def input_value(layer: Layer) -> ir.Value:
    """What a layer multiplies its weights with."""
    value = layer.node.inputs[layer.activations[0]]
    if value is None:
        raise ValueError(layer.node.name)
    return value


def weight_value(layer: Layer) -> ir.Value:
    """The initializer of a layer's weights."""
    value = layer.node.inputs[layer.weight] if layer.weight is not None else None
    if value is None:
        raise ValueError(f"{layer.node.name} has no weights")
    return value


def as_matrices(layer: Layer, array: Weights) -> Weights:
    """A view of the weights as [output, kernel position, input of the group].

    ========================  ==============================
    Conv                      W[O, I/g, …] → [O, positions, I/g]
    ConvTranspose             W[I, O/g, …] → [O/g, positions, I]
    Gemm, MatMul              W[O, I] or W[I, O] → [O, 1, I]
    ========================  ==============================

    Raises:
        ValueError: a product of stacks of matrices, which has no single reduction axis.
    """
    if layer.node.op_type in ("Conv", "ConvTranspose"):
        flat = array.reshape(*array.shape[:2], -1)
        return flat.transpose(0, 2, 1) if layer.node.op_type == "Conv" else flat.transpose(1, 2, 0)
    if array.ndim != 2:
        raise ValueError("weights of a stack of matrices")
    outputs_last = layer.channel_axis == 1
    return (array.T if outputs_last else array)[:, None, :]


def from_matrices(layer: Layer, matrices: Weights, shape: tuple[int, ...]) -> Weights:
    """The inverse of :func:`as_matrices` for weights of that shape."""
    if layer.node.op_type == "Conv":
        return matrices.transpose(0, 2, 1).reshape(shape)
    if layer.node.op_type == "ConvTranspose":
        return matrices.transpose(2, 0, 1).reshape(shape)
    flat = matrices[:, 0, :]
    return np.ascontiguousarray(flat.T if layer.channel_axis == 1 else flat)


def refusal_of(layer: Layer, graph: ir.Graph) -> str:
    """Why a layer's weights are left alone whatever the pattern; empty when they are not."""
    value = weight_value(layer)
    array = constant_of(value)
    if array is None or array.dtype != np.float32:
        return "its weights are not float32"
    if not np.all(np.isfinite(array)):
        return "its weights hold NaN or infinity"
    if layer.node.op_type in ("Gemm", "MatMul") and array.ndim != 2:
        return "its weights are a stack of matrices"
    if layer.node.op_type == "MatMul" and layer.weight == 0:
        return "its weights stand on the left, where they have no reduction axis of their own"
    if attribute(layer.node, "group", 1) > 1 and array.shape[1] == 1:
        return "it is a depthwise convolution: few weights, each of them needed"
    if any(layer.node.inputs[index] in graph.inputs for index in layer.activations):
        return "it reads the network's input: few weights, and the most sensitive ones"
    return "" if _one_role(value) else "its weights are used in several ways"


def _one_role(value: ir.Value) -> bool:
    """Whether all readers of shared weights see the same matrices in them."""
    roles = {(use.node.op_type, use.idx, attribute(use.node, "transB", 0)) for use in value.uses()}
    return len(roles) == 1 and not value.is_graph_output()
