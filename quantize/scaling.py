"""Finding what makes the channels of a tensor, and dividing them by factors there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.layers import WEIGHTED, attribute, constant_of, describe
from edgewise.quantize.passes.writing import Writer

# What comes out is scaled when what goes in is, by positive factors, channel by channel.
_HOMOGENEOUS = ("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Identity", "LeakyRelu", "MaxPool", "Relu")


@dataclass(frozen=True)
class Absorber:
    """A constant input of a node whose entries along ``axis`` belong to the channels from ``start`` on.

    A constant without that axis is the same for all of the ``count`` channels.
    """

    node: ir.Node
    index: int
    axis: int | None
    start: int
    count: int

    def divide(self, writer: Writer, factors: NDArray[np.float64], last: bool) -> None:
        """Give the node a constant of its own, divided by its channels' factors."""
        value = self.node.inputs[self.index]
        array = np.asarray(constant_of(value), dtype=np.float32)
        own = factors[self.start : self.start + self.count]
        if self.axis is None:
            scaled = array / (own if last else own.reshape(-1, 1, 1))
        else:
            scaled = array / own.reshape([-1 if axis == self.axis else 1 for axis in range(array.ndim)])
        name = f"{value.name}_balanced" if value is not None else "balanced"
        self.node.replace_input_with(self.index, writer.constant(name, scaled.astype(np.float32)))


class Makers:
    """Walks from a tensor to the constants that scale its channels.

    Args:
        last: the channels run along the last axis (linear layers), else along axis 1 (images).
    """

    def __init__(self, last: bool) -> None:
        self._last = last
        self.absorbers: list[Absorber] = []

    def find(self, value: ir.Value, start: int, count: int) -> bool:
        """Whether constants can take the factors of channels ``start`` to ``start + count``; they are in ``absorbers``.

        The readers of ``value`` itself are the caller's concern; what lies before it must be read on this way alone.
        """
        node = value.producer()
        if node is None or node.domain:
            return False
        if node.op_type in _HOMOGENEOUS and len(node.outputs) == 1:
            return self._before(node.inputs[0], start, count)
        if node.op_type == "Concat":
            return self._joined(node, start)
        if node.op_type in WEIGHTED:
            return self._layer(node, start, count)
        if node.op_type == "LayerNormalization":
            return self._normalization(node, start, count)
        if node.op_type not in ("Add", "Mul"):
            return False
        computed = all(constant_of(value) is None for value in node.inputs)
        return self._gated(node, start, count) if computed else self._with_constant(node, start, count)

    def _before(self, value: ir.Value | None, start: int, count: int) -> bool:
        if value is None or value.is_graph_output() or len(list(value.uses())) != 1:
            return False
        return self.find(value, start, count)

    def _joined(self, node: ir.Node, start: int) -> bool:
        if self._last or attribute(node, "axis", 1) != 1:
            return False
        for value in node.inputs:
            size = value.shape[1] if value is not None and value.shape is not None and len(value.shape) > 1 else None
            if not isinstance(size, int) or not self._before(value, start, size):
                return False
            start += size
        return True

    def _gated(self, node: ir.Node, start: int, count: int) -> bool:
        """A product of what two linear layers made (GLU, SwiGLU): one of its factors takes it all."""
        if node.op_type != "Mul" or not self._last:
            return False
        for value in node.inputs:
            before = len(self.absorbers)
            if self._before(value, start, count):
                return True
            del self.absorbers[before:]  # found on a way that ended
        return False

    def _layer(self, node: ir.Node, start: int, count: int) -> bool:
        layer = describe(node)
        convolves = node.op_type in ("Conv", "ConvTranspose")
        if layer.weight is None or layer.channel_axis is None or convolves == self._last:
            return False
        if node.op_type == "ConvTranspose" and attribute(node, "group", 1) != 1:
            return False
        weights = node.inputs[layer.weight]
        array = constant_of(weights)
        if (
            weights is None
            or array is None
            or array.shape[layer.channel_axis] != count
            or len(list(weights.uses())) != 1
        ):
            return False
        self.absorbers.append(Absorber(node, layer.weight, layer.channel_axis, start, count))
        return layer.bias is None or self._vector(node, layer.bias, start, count)

    def _normalization(self, node: ir.Node, start: int, count: int) -> bool:
        rank = len(node.inputs[0].shape) if node.inputs[0] is not None and node.inputs[0].shape is not None else 0
        if not self._last or attribute(node, "axis", -1) not in (-1, rank - 1):
            return False
        bias = len(node.inputs) > 2 and node.inputs[2] is not None
        return self._vector(node, 1, start, count) and (not bias or self._vector(node, 2, start, count))

    def _with_constant(self, node: ir.Node, start: int, count: int) -> bool:
        constants = [
            (index, array) for index, value in enumerate(node.inputs) if (array := constant_of(value)) is not None
        ]
        if len(constants) != 1:
            return False
        index, array = constants[0]
        if node.op_type == "Mul" and array.size == 1:
            return self._take(node, index, None, start, count)
        if not self._vector(node, index, start, count):
            return False
        return node.op_type == "Mul" or self._before(node.inputs[1 - index], start, count)

    def _vector(self, node: ir.Node, index: int, start: int, count: int) -> bool:
        """A constant with one entry per channel, in the place where it meets them."""
        array = constant_of(node.inputs[index])
        if array is None or array.size != count:
            return False
        axis = array.ndim - 1 if self._last or array.ndim == 1 else array.ndim - 3
        if axis < 0 or array.shape[axis] != count:
            return False
        if array.ndim == 1 and not self._last and node.op_type in ("Add", "Mul"):
            return False  # it meets the last axis of the image, not its channels
        return self._take(node, index, axis, start, count)

    def _take(self, node: ir.Node, index: int, axis: int | None, start: int, count: int) -> bool:
        array = constant_of(node.inputs[index])
        if array is None or array.dtype != np.float32:
            return False
        self.absorbers.append(Absorber(node, index, axis, start, count))
        return True
