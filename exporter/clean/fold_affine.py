"""Fold what scales and shifts channels into the weights before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgewise.exporter.clean.base import (
    GraphPass,
    add_initializer,
    attribute_int,
    constant,
    is_op,
    only_consumer,
    with_array,
)

_LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Affine:
    """y = scale·x + shift per channel: two vectors, or scalars."""

    scale: np.ndarray
    shift: np.ndarray


class FoldAffine(GraphPass):
    """BatchNormalization, or Mul, Div, Add, Sub with a constant per channel, goes into Conv, ConvTranspose, Gemm or MatMul.

    Before::

        x ── Conv(W, b) ── BatchNormalization(γ, β, μ, σ²) ── y
        x ── MatMul(W) ── Add(b) ── Mul(γ) ── y

    After, with s = γ/√(σ²+ε)::

        x ── Conv(s·W, s·(b−μ)+β) ── y
        x ── MatMul(W·γ) ── Add(b·γ) ── y

    Not folded: a result that is used elsewhere or is an output, weights that are not constant, a constant that varies along another
    axis than the channels, BatchNormalization in training mode, integer arithmetic. A shift does not go into a MatMul, which has no
    bias. The arithmetic is in float64.
    """

    def rewrite(self, graph: ir.Graph, opset: int) -> int:
        """Fold in a graph, as often as something that folds follows."""
        count = 0
        for node in [node for node in graph if is_op(node, *_LINEAR)]:
            while _fold(graph, node):
                count += 1
        return count


def _fold(graph: ir.Graph, node: ir.Node) -> bool:
    """Fold what follows a node into it."""
    weight = constant(node.inputs[1])
    if weight is None or weight.dtype.kind != "f" or node.inputs[0] is None:
        return False
    channels = _channels(node, weight)
    follower = only_consumer(node.outputs[0])
    if follower is None or channels is None:
        return False
    if is_op(node, "MatMul"):
        return _fold_into_matmul(graph, node, follower, weight)
    bias = constant(node.inputs[2]) if _has_bias(node) else np.zeros(1)
    affine = _affine(follower, node.outputs[0], channels, rank=2 if is_op(node, "Gemm") else weight.ndim)
    if affine is None or bias is None:
        return False
    if is_op(node, "Gemm"):
        bias = bias.reshape(-1) * (node.attributes["beta"].as_float() if "beta" in node.attributes else 1.0)
    new_weight = weight.astype(np.float64) * _along(affine.scale, node, weight)
    new_bias = np.broadcast_to(bias.astype(np.float64) * affine.scale + affine.shift, (channels,)).astype(weight.dtype)
    scaled = with_array(graph, node.inputs[1], new_weight.astype(weight.dtype))
    node.replace_input_with(1, scaled)
    if _has_bias(node):
        node.replace_input_with(2, with_array(graph, node.inputs[2], new_bias))
    else:
        node.resize_inputs(3)
        name = f"{str(scaled.name).removesuffix('.weight')}.bias"
        node.replace_input_with(2, add_initializer(graph, new_bias, name))
    node.attributes.pop("beta", None)
    _bypass(graph, follower, node)
    return True


def _fold_into_matmul(graph: ir.Graph, node: ir.Node, follower: ir.Node, weight: np.ndarray) -> bool:
    """MatMul (and the bias added to it) takes a scale along the last axis."""
    scaled, bias_value = follower, None
    if is_op(follower, "Add"):
        bias_value = follower.inputs[1] if follower.inputs[0] is node.outputs[0] else follower.inputs[0]
        scaled_or_none = only_consumer(follower.outputs[0])
        if scaled_or_none is None:
            return False
        scaled = scaled_or_none
    bias = constant(bias_value)
    if bias_value is not None and (bias is None or bias.size not in (1, weight.shape[-1]) or bias.ndim > 1):
        return False
    source = node.outputs[0] if bias_value is None else follower.outputs[0]
    rank = len(source.shape) if source.shape is not None else 2
    affine = _affine(scaled, source, weight.shape[-1], rank, last=True)
    if affine is None or affine.shift.any() or is_op(scaled, "BatchNormalization"):
        return False
    new_weight = (weight.astype(np.float64) * affine.scale).astype(weight.dtype)
    node.replace_input_with(1, with_array(graph, node.inputs[1], new_weight))
    if bias is None:
        _bypass(graph, scaled, node)
        return True
    new_bias = (bias.astype(np.float64) * affine.scale).astype(bias.dtype)
    follower.replace_input_with(list(follower.inputs).index(bias_value), with_array(graph, bias_value, new_bias))
    _bypass(graph, scaled, follower)
    return True


def _bypass(graph: ir.Graph, node: ir.Node, producer: ir.Node) -> None:
    """Let ``producer`` give what ``node`` gave, under its name."""
    before, after = node.outputs[0], producer.outputs[0]
    after.name, after.shape, after.type = before.name, before.shape, before.type
    after.meta.update(before.meta)
    before.replace_all_uses_with(after, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _has_bias(node: ir.Node) -> bool:
    return len(node.inputs) > 2 and node.inputs[2] is not None


def _channels(node: ir.Node, weight: np.ndarray) -> int | None:
    """How many output channels a linear operator has."""
    if is_op(node, "ConvTranspose"):
        return int(weight.shape[1]) * attribute_int(node, "group", 1)
    if is_op(node, "Gemm"):
        return int(weight.shape[0 if attribute_int(node, "transB", 0) else 1])
    if is_op(node, "MatMul"):
        return int(weight.shape[-1]) if weight.ndim == 2 else None
    return int(weight.shape[0])


def _along(scale: np.ndarray, node: ir.Node, weight: np.ndarray) -> np.ndarray:
    """The scale, shaped to multiply the weight."""
    if scale.ndim == 0:
        return scale
    if is_op(node, "Gemm"):
        return scale[:, None] if attribute_int(node, "transB", 0) else scale[None, :]
    tail = (1,) * (weight.ndim - 2)
    if is_op(node, "ConvTranspose"):  # weight [inputs, outputs/group, …]: each group of inputs has its own outputs
        group = attribute_int(node, "group", 1)
        return np.repeat(scale.reshape(group, -1), weight.shape[0] // group, axis=0).reshape(*weight.shape[:2], *tail)
    return scale.reshape(-1, 1, *tail)


def _affine(node: ir.Node, source: ir.Value, channels: int, rank: int, *, last: bool = False) -> Affine | None:
    """What a node does to ``source``, if it scales and shifts its channels: axis 1, or the last one."""
    if is_op(node, "BatchNormalization"):
        return _batch_norm(node)
    if not is_op(node, "Mul", "Div", "Add", "Sub"):
        return None
    first = node.inputs[0] is source
    array = constant(node.inputs[1 if first else 0])
    if array is None or array.dtype.kind != "f" or (not first and is_op(node, "Div", "Sub")):
        return None
    vector = _per_channel(array.astype(np.float64), channels, rank, rank - 1 if last else 1)
    if vector is None:
        return None
    one, zero = np.float64(1), np.float64(0)
    match node.op_type:
        case "Mul":
            return Affine(vector, np.asarray(zero))
        case "Div":
            return Affine(1 / vector, np.asarray(zero)) if vector.all() else None
        case "Add":
            return Affine(np.asarray(one), vector)
        case _:
            return Affine(np.asarray(one), -vector)


def _per_channel(array: np.ndarray, channels: int, rank: int, axis: int) -> np.ndarray | None:
    """A constant as one number or one per channel; None when it varies otherwise (or would add an axis)."""
    if array.ndim > rank:
        return None
    if array.size == 1:
        return array.reshape(())
    wanted = tuple(channels if place == axis else 1 for place in range(rank))
    padded = (1,) * (rank - array.ndim) + array.shape
    return array.reshape(-1) if padded == wanted else None


def _batch_norm(node: ir.Node) -> Affine | None:
    parts = [constant(value) for value in node.inputs[1:5]]
    if attribute_int(node, "training_mode", 0) or any(output.uses() for output in node.outputs[1:]):
        return None
    if any(part is None for part in parts):
        return None
    gamma, beta, mean, variance = (np.asarray(part, np.float64) for part in parts)
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    scale = gamma / np.sqrt(variance + epsilon)
    return Affine(scale, beta - mean * scale)
