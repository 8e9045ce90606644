"""Operators that have weights: where they are, and along which axes outputs and reduction run."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx_ir as ir

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Layer:
    """A node of ``WEIGHTED``; without constant weights (``weight`` None) it multiplies two activations.

    Attributes:
        node: the node.
        activations: indices of the inputs that are activations.
        weight: index of the input that holds constant weights.
        channel_axis: the axis of the weights along which output channels run; None when there is no such single axis.
        bias: index of the bias' input.
    """

    node: ir.Node
    activations: tuple[int, ...]
    weight: int | None = None
    channel_axis: int | None = None
    bias: int | None = None


def constant_of(value: ir.Value | None) -> NDArray[np.generic] | None:
    """The array of an initializer; None when the value is computed or may be passed by the caller."""
    if value is None or not value.is_initializer() or value.is_graph_input() or value.const_value is None:
        return None
    return value.const_value.numpy()


def attribute(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute or its default."""
    found = node.attributes.get(name)
    return default if found is None else found.as_int()


def describe(node: ir.Node) -> Layer:
    """Find weights, axes and bias of a node of ``WEIGHTED``; weights that are no constants are taken for activations."""
    layer = _DESCRIBE[node.op_type](node)
    if layer.weight is not None and constant_of(node.inputs[layer.weight]) is None:
        return Layer(node, (*layer.activations, layer.weight))
    return layer


def macs_of(node: ir.Node, first: tuple[int, ...], second: tuple[int, ...], output: tuple[int, ...]) -> int:
    """Multiply-accumulates of a node of ``WEIGHTED``, by the shapes of its first two inputs and its output."""
    if node.op_type == "Conv":
        return prod(output) * prod(second[1:])
    if node.op_type == "ConvTranspose":
        return prod(first) * prod(second[1:])
    return prod(output) * first[-2 if attribute(node, "transA", 0) else -1]


def _conv(node: ir.Node) -> Layer:
    return Layer(node, (0,), 1, 0, _third_input(node))


def _conv_transpose(node: ir.Node) -> Layer:
    return Layer(node, (0,), 1, 1, _third_input(node))


def _gemm(node: ir.Node) -> Layer:
    return Layer(node, (0,), 1, 0 if attribute(node, "transB", 0) else 1, _third_input(node))


def _matmul(node: ir.Node) -> Layer:
    left, right = (constant_of(value) for value in node.inputs)
    if right is not None:
        return Layer(node, (0,), 1, right.ndim - 1 if right.ndim > 1 else None)
    if left is not None:
        return Layer(node, (1,), 0, None)
    return Layer(node, (0, 1))


def _third_input(node: ir.Node) -> int | None:
    return 2 if len(node.inputs) > 2 and node.inputs[2] is not None else None


_DESCRIBE = {"Conv": _conv, "ConvTranspose": _conv_transpose, "Gemm": _gemm, "MatMul": _matmul}
