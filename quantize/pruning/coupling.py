"""Finding everything that has to shrink with the output channels of a layer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgewise.quantize.layers import WEIGHTED, Layer, attribute, constant_of, describe
from edgewise.quantize.pruning.matrices import weight_value

# Operators that treat every channel by itself and read one tensor; the second kind only images have.
_CHANNELWISE = {
    "Clip", "Dropout", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Relu", "Sigmoid",
    "Softplus", "Sqrt", "Tanh",
}  # fmt: skip
_POOLS = {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"}
_PAIRED = {"Add", "Div", "Mul", "Sub"}


class Refusal(Exception):  # noqa: N818 - never leaves the channel pass: the reason goes into the report
    """Why layers keep their channels."""


@dataclass
class Group:
    """Layers whose output channels are bound to one another, and what else has to shrink with them.

    ::

        Conv a ─┬─► Add ─► Relu ─┬─► Conv c      a and b make the channels, c and d read them
        Conv b ─┘                └─► Conv d

    Attributes:
        count: how many channels there are.
        makers: the layers whose outputs they are.
        cuts: per constant, the axis and how many entries belong to one channel.
        depthwise: convolutions whose groups are the channels.
        passed: the tensors that carry the channels, with the axis.
        flattened: Reshapes that are Flattens.
    """

    count: int
    makers: list[Layer] = field(default_factory=list)
    cuts: list[tuple[ir.Value, int, int]] = field(default_factory=list)
    depthwise: list[ir.Node] = field(default_factory=list)
    passed: dict[ir.Value, int] = field(default_factory=dict)
    flattened: list[ir.Node] = field(default_factory=list)

    def visit(self, value: ir.Value | None, axis: int, block: int = 1) -> None:
        """Follow the channels of a tensor to what makes them and to all that read them.

        Args:
            value: the tensor.
            axis: along which its channels run.
            block: entries per channel along that axis, more than one behind a Flatten.

        Raises:
            Refusal: something on the way cannot shrink.
        """
        if value is None or value in self.passed:
            return
        if value.is_graph_output():
            raise Refusal("its channels are an output of the network")
        self.passed[value] = axis
        self._up(value, axis, block)
        for use in list(value.uses()):
            self._down(use.node, use.idx, value, axis, block)

    def _up(self, value: ir.Value, axis: int, block: int) -> None:
        node = value.producer()
        if node is None:
            raise Refusal("its channels are bound to an input of the network")
        if node.op_type in WEIGHTED and not node.domain:
            self._maker(node, axis, block)
        elif self._keeps(node, axis):
            self.visit(node.inputs[0], axis, block)
        elif node.op_type in _PAIRED:
            self._pair(node, axis, block)
        elif _flattens(node):
            source = node.inputs[0]
            if source is None or source not in self.passed:
                raise Refusal(f"its channels come out of {node.op_type} {node.name!r}")
        else:
            raise Refusal(f"its channels are bound to {node.op_type} {node.name!r}, which others share")

    def _maker(self, node: ir.Node, axis: int, block: int) -> None:
        layer = describe(node)
        if layer.weight is None or layer.channel_axis is None or node.op_type == "ConvTranspose":
            raise Refusal(f"its channels are made by {node.op_type} {node.name!r}, which cannot shrink")
        array = np.asarray(constant_of(weight_value(layer)))
        last = _rank(node.outputs[0]) - 1
        fits = axis == 1 if node.op_type == "Conv" else array.ndim == 2 and axis == last
        if not fits or block != 1 or array.shape[layer.channel_axis] != self.count:
            raise Refusal(f"its channels are made by {node.op_type} {node.name!r} along another axis")
        groups = attribute(node, "group", 1)
        if groups == 1:
            self.makers.append(layer)
        elif groups == self.count and array.shape[1] == 1:
            self.depthwise.append(node)
            self.visit(node.inputs[0], 1)
        else:
            raise Refusal(f"its channels are bound to groups of {node.name!r}")
        self.cuts.append((weight_value(layer), layer.channel_axis, 1))
        if layer.bias is not None:
            self._constant(node.inputs[layer.bias], 0, 1, 1)

    def _down(self, node: ir.Node, index: int, value: ir.Value, axis: int, block: int) -> None:
        if node.op_type in WEIGHTED and index == 0 and not node.domain:
            self._reader(node, axis, block)
        elif (self._keeps(node, axis) and index == 0) or node.op_type in _PAIRED:
            self.visit(node.outputs[0], axis, block)
        elif index == 0 and block == 1 and axis == 1 and _flattens(node):
            if node.op_type == "Reshape":
                self.flattened.append(node)
            self.visit(node.outputs[0], 1, _entries_per_channel(value))
        elif index == 0 and node.op_type == "ReduceMean" and axis == 1 and _spatial(node):
            self.visit(node.outputs[0], 1, block)
        else:
            raise Refusal(f"its channels go into {node.op_type} {node.name!r}, which others share")

    def _keeps(self, node: ir.Node, axis: int) -> bool:
        if node.op_type == "ReduceMean":
            return axis == 1 and _spatial(node)
        return not node.domain and (node.op_type in _CHANNELWISE or (axis == 1 and node.op_type in _POOLS))

    def _pair(self, node: ir.Node, axis: int, block: int) -> None:
        """The operands of an addition or the like, constants and tensors of the same rank."""
        rank = _rank(node.outputs[0])
        for operand in node.inputs:
            array = constant_of(operand)
            if array is not None:
                own = axis - (rank - array.ndim)
                self._constant(operand, own, block, array.shape[own] if own >= 0 else 1)
            elif operand is None or _rank(operand) != rank or _size(operand, axis) != self.count * block:
                raise Refusal(f"its channels meet others in {node.op_type} {node.name!r}")
            else:
                self.visit(operand, axis, block)

    def _constant(self, value: ir.Value | None, axis: int, block: int, size: int) -> None:
        """Cut a constant that has the channels; one that is the same for all of them stays."""
        array = constant_of(value)
        if array is not None and value is not None and axis >= 0 and array.shape[axis] == self.count * block:
            self.cuts.append((value, axis, block))
        elif value is None or array is None or size != 1:
            raise Refusal("a bias is not a constant vector")

    def _reader(self, node: ir.Node, axis: int, block: int) -> None:
        layer = describe(node)
        if layer.weight != 1:
            raise Refusal(f"its channels go into {node.op_type} {node.name!r}, whose weights are not constant")
        weights, groups = weight_value(layer), attribute(node, "group", 1)
        array = np.asarray(constant_of(weights))
        if node.op_type in ("Gemm", "MatMul"):
            if array.ndim != 2 or attribute(node, "transA", 0) or axis != _rank(node.inputs[0]) - 1:
                raise Refusal(f"its channels go into {node.op_type} {node.name!r} along another axis")
            self.cuts.append((weights, 1 - (layer.channel_axis or 0), block))
        elif node.op_type != "Conv" or axis != 1:
            raise Refusal(f"its channels go into {node.op_type} {node.name!r}, which others share")
        elif groups == 1:
            self.cuts.append((weights, 1, 1))
        elif groups == self.count == array.shape[0]:
            self.visit(node.outputs[0], 1)
        else:
            raise Refusal(f"its channels go into the grouped convolution {node.name!r}")


def _flattens(node: ir.Node) -> bool:
    """Whether a Flatten or a Reshape makes [batch, all the rest] of its input."""
    if node.op_type == "Flatten":
        return attribute(node, "axis", 1) == 1
    before, after = (value.shape if value is not None else None for value in (node.inputs[0], node.outputs[0]))
    if node.op_type != "Reshape" or before is None or after is None:
        return False
    return len(before) > 1 and len(after) == 2 and before[0] == after[0] and before[0] != 0


def _spatial(node: ir.Node) -> bool:
    """Whether a ReduceMean takes in the dims of images alone, and the channels stay at axis 1."""
    axes = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    rank = _rank(node.inputs[0])
    return axes is not None and rank > 2 and {int(each) % rank for each in axes.reshape(-1)} == set(range(2, rank))


def _rank(value: ir.Value | None) -> int:
    return len(value.shape) if value is not None and value.shape is not None else -1


def _size(value: ir.Value, axis: int) -> int:
    dim = value.shape[axis] if value.shape is not None else None
    return dim if isinstance(dim, int) else -1


def _entries_per_channel(value: ir.Value) -> int:
    shape = value.shape
    if shape is None or any(not isinstance(dim, int) for dim in list(shape)[2:]):
        raise Refusal("its channels are flattened together with dims that are not known")
    return int(np.prod([int(dim) for dim in list(shape)[2:] if isinstance(dim, int)], dtype=np.int64))
