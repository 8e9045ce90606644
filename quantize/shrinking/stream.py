"""The residual stream of a pre-norm transformer: what is added to it, and the normalisations that read it. Found, not declared."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from edgewise.quantize.layers import Layer, attribute, constant_of, describe
from edgewise.quantize.pruning.biases import bias_of
from edgewise.quantize.pruning.matrices import weight_value
from edgewise.quantize.shrinking.entries import rank_of, size_of


class NotAStream(Exception):  # noqa: N818 - never leaves the slicing pass: the reason goes into the report
    """Why a network has no stream that can be turned."""


@dataclass
class Position:
    """The stream between two additions.

    ::

        value ─┬─► LayerNormalization ─► readers
               └─► Add(·, writer's output) ─► the next position

    Attributes:
        value: float32 [..., width].
        norm: the normalisation that reads it.
        readers: layers that read what was normalised.
        add: the addition that makes the next position; None at the last one.
        writer: the layer whose output is added there.
        bias: of the writer.
    """

    value: ir.Value
    norm: ir.Node
    readers: list[Layer] = field(default_factory=list)
    add: ir.Node | None = None
    writer: Layer | None = None
    bias: ir.Value | None = None


def find_stream(graph: ir.Graph) -> list[Position]:
    """The positions of the stream in order.

    Raises:
        NotAStream: there is none, or something else reads or makes a part of it.
    """
    norms = [node for node in graph if node.op_type == "LayerNormalization" and not node.domain]
    if not norms or norms[0].inputs[0] is None:
        raise NotAStream("the network has no LayerNormalization")
    value: ir.Value | None = norms[0].inputs[0]
    positions: list[Position] = []
    while value is not None:
        position = _position(value)
        positions.append(position)
        value = position.add.outputs[0] if position.add is not None else None
    if len(positions) < 2:
        raise NotAStream(
            "nothing is added to what its first LayerNormalization reads: it is not a pre-norm transformer"
        )
    return positions


def _position(value: ir.Value) -> Position:
    uses = list(value.uses())
    norms = [use.node for use in uses if use.node.op_type == "LayerNormalization" and use.idx == 0]
    others = [use.node for use in uses if use.node not in norms]
    if value.is_graph_output() or len(norms) != 1 or len(others) > 1:
        names = ", ".join(f"{node.op_type} {node.name!r}" for node in others) or "the network's output"
        raise NotAStream(f"{names} reads the stream at {value.name!r}, beside its normalisation")
    norm = norms[0]
    if attribute(norm, "axis", -1) % rank_of(value) != rank_of(value) - 1 or size_of(value, -1) is None:
        raise NotAStream(f"{norm.name!r} normalises over more than the width")
    if any(constant_of(each) is None for each in norm.inputs[1:]):
        raise NotAStream(f"scale or shift of {norm.name!r} are no constants")
    position = Position(value, norm, _readers(norm.outputs[0]))
    if others:
        _write(position, others[0])
    return position


def _readers(value: ir.Value) -> list[Layer]:
    """Layers that read a normalised tensor, behind a choice of tokens at most."""
    if value.is_graph_output():
        raise NotAStream(f"the normalised tensor {value.name!r} is an output of the network")
    found: list[Layer] = []
    for use in value.uses():
        node = use.node
        if (
            node.op_type == "Gather"
            and use.idx == 0
            and attribute(node, "axis", 0) % rank_of(value) < rank_of(value) - 1
        ):
            found += _readers(node.outputs[0])
        elif node.op_type in ("Gemm", "MatMul") and use.idx == 0 and not attribute(node, "transA", 0):
            found.append(_linear(node, f"{node.name!r} reads the normalised stream"))
        else:
            raise NotAStream(f"{node.op_type} {node.name!r} reads the normalised stream, which it cannot turn back")
    return found


def _linear(node: ir.Node, where: str) -> Layer:
    layer = describe(node)
    array = constant_of(node.inputs[1])
    if layer.weight != 1 or array is None or array.ndim != 2:
        raise NotAStream(f"{where} with weights that are no constant matrix")
    if len(list(weight_value(layer).uses())) > 1:
        raise NotAStream(f"{where} with weights that others share")
    if bias_of(layer, array.shape[layer.channel_axis or 0]) is None:
        raise NotAStream(f"{where} without a bias of its own")
    return layer


def _write(position: Position, add: ir.Node) -> None:
    """What is added to the stream: a product and its bias."""
    if add.op_type != "Add":
        raise NotAStream(f"{add.op_type} {add.name!r} reads the stream at {position.value.name!r}")
    branch = add.inputs[0] if add.inputs[1] is position.value else add.inputs[1]
    biased = branch.producer() if branch is not None else None
    product = biased
    if biased is not None and biased.op_type == "Add":
        product = next((v.producer() for v in biased.inputs if v is not None and v.producer() is not None), None)
    if branch is None or product is None or product.op_type not in ("Gemm", "MatMul") or len(list(branch.uses())) > 1:
        raise NotAStream(f"what {add.name!r} adds to the stream is not made by a linear layer alone")
    layer = _linear(product, f"{product.name!r} writes the stream")
    bias = bias_of(layer, size_of(branch, -1) or 0)
    position.add, position.writer, position.bias = add, layer, bias
