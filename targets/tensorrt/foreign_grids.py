"""Rounding that stands where TensorRT's integer kernels do not read it, as other tools place it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum")
# Values go through unchanged (or are averaged in integers): rounded behind, they are read as integers before.
_MOVES = (
    "AveragePool", "Cast", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GlobalAveragePool", "Identity", "MaxPool", "Pad", "Reshape", "Resize",
    "Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
_COMMUTES = ("MaxPool", "Concat")
_FUSED = ("Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSwish", "Mul", "Identity")


class DropRounding(ir.passes.InPlacePass):
    """Let what computes in floats read floats.

    Before::

        MatMul ─► Q ─► DQ ─► Erf …  ─► Q ─► DQ ─► MatMul        Conv ─► Q ─► DQ ─► Add ◄─ DQ ◄─ Q ◄─ skip

    After::

        MatMul ─► Erf …  ─► Q ─► DQ ─► MatMul                   Conv ─► Add ◄─ DQ ◄─ Q ◄─ skip

    Before a normalisation, an activation, a Softmax or a residual stream that stays in floats a Q ends the kernel before it: the numbers
    go to memory once more and lose digits for nothing. Of an addition whose sum is rounded, what a convolution makes for it stays inside
    the convolution's kernel, and the other branch is rounded (NVIDIA's guide to explicit quantization). Constants are floats for readers
    without an integer kernel. ``dropped`` names those whose rounding went.

    Args:
        in_floats: products that the builder has no integer kernel for: ConvTranspose, with TensorRT for RTX.
    """

    def __init__(self, in_floats: tuple[str, ...] = ()) -> None:
        self._products = tuple(op for op in _PRODUCTS if op not in in_floats)
        self.dropped: list[str] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Treat every use of a dequantized value in the main graph, the last first: a rounding that is gone asks for none before it."""
        for node in [node for node in reversed(list(model.graph)) if node.op_type == "DequantizeLinear"]:
            if (constant := _constant(node)) is not None:
                wanted = [(use.node, use.idx) for use in node.outputs[0].uses() if self._wants_float(use.node, use.idx)]
                _read_floats(wanted, f"{node.outputs[0].name}_float", constant, model.graph)
            source = _before_rounding(node)
            uses = list(node.outputs[0].uses()) if source is not None else []
            for use in [use for use in uses if not self._reads_integers(use.node, use.idx)]:
                use.node.replace_input_with(use.idx, source)
                self.dropped.append(use.node.name or "")
            _remove_unread(node, model.graph)
        return ir.passes.PassResult(model, modified=bool(self.dropped))  # constants alone change no form

    def _reads_integers(self, node: ir.Node, index: int) -> bool:
        """Whether a dequantized value is read as integers there: by a product, on the way to a rounding, as the skip of a sum."""
        if node.op_type in _PRODUCTS:
            return index < 2 and node.op_type in self._products
        if node.op_type in _MOVES:
            return (index > 0 and node.op_type != "Concat") or any(
                self._leads_to_integers(output) for output in node.outputs
            )
        if node.op_type == "Add":
            value = node.inputs[index]
            return (
                value is not None
                and self._leads_to_integers(_behind_activation(node.outputs[0]))
                and not _stays_inside(value, node.inputs[1 - index])
            )
        return node.op_type == "QuantizeLinear" or bool(node.domain)

    def _wants_float(self, reader: ir.Node, place: int) -> bool:
        """Of a constant: tables that are gathered from, and weights on their way to a product, stay small."""
        return reader.op_type not in _MOVES and not self._reads_integers(reader, place)

    def _leads_to_integers(self, value: ir.Value) -> bool:
        return any(use.node.op_type == "QuantizeLinear" or self._moved_on(use.node, use.idx) for use in value.uses())

    def _moved_on(self, node: ir.Node, index: int) -> bool:
        if node.op_type in _PRODUCTS:
            return node.op_type in self._products
        return node.op_type in _MOVES and index == 0 and any(self._leads_to_integers(output) for output in node.outputs)


class RoundBeforePools(ir.passes.InPlacePass):
    """Move rounding before what only takes the greatest or puts side by side: the same numbers, in a quarter of the bytes.

    Before::

        Conv ─► Relu ─► MaxPool ─► Q ─► DQ ─► Conv

    After::

        Conv ─► Relu ─► Q ─► DQ ─► MaxPool ─► Q ─► DQ ─► Conv        one scale

    Where a Q is the only reader of a MaxPool or Concat, its scale is one number, and what is before is not rounded yet.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Treat every QuantizeLinear of the main graph, and those that this puts in: a pool may follow another."""
        waiting = [node for node in model.graph if node.op_type == "QuantizeLinear"]
        modified = False
        while waiting:
            node = waiting.pop()
            mover = node.inputs[0].producer() if node.inputs[0] is not None else None
            if mover is not None and mover.op_type in _COMMUTES and _commutes(node, mover):
                made = [_round_before(mover, index, node, model.graph) for index in range(len(mover.inputs))]
                waiting += [each for each in made if each is not None]
                modified |= any(each is not None for each in made)
        return ir.passes.PassResult(model, modified=modified)


def _before_rounding(node: ir.Node) -> ir.Value | None:
    """What was rounded, where the node dequantizes that very rounding."""
    quantize = node.inputs[0].producer() if node.op_type == "DequantizeLinear" and node.inputs[0] is not None else None
    if quantize is None or quantize.op_type != "QuantizeLinear":
        return None
    source = quantize.inputs[0]
    return source if source is not None and source.dtype == node.outputs[0].dtype else None


def _remove_unread(node: ir.Node, graph: ir.Graph) -> None:
    quantize = node.inputs[0].producer() if node.inputs[0] is not None else None
    for each in (node, quantize):
        if each is not None and each.op_type in ("QuantizeLinear", "DequantizeLinear") and _unread(each.outputs[0]):
            graph.remove(each, safe=True)


def _unread(value: ir.Value) -> bool:
    return not list(value.uses()) and not value.is_graph_output()


def _behind_activation(value: ir.Value) -> ir.Value:
    uses = list(value.uses())
    return uses[0].node.outputs[0] if len(uses) == 1 and uses[0].node.op_type in _FUSED else value


def _stays_inside(value: ir.Value, other: ir.Value | None) -> bool:
    """Whether a convolution makes it for this sum alone, so that its own rounding would tear them apart.

    Of two convolutions one adds inside, and the other's output is the branch that is rounded.
    """
    beside = other.producer() if other is not None else None
    if beside is not None and beside.op_type in _PRODUCTS:
        return False
    source = _before_rounding(value.producer()) if value.producer() is not None else None  # type: ignore[arg-type]
    made = source.producer() if source is not None else None
    alone = source is not None and len(list(source.uses())) == 1 and len(list(value.uses())) == 1
    return made is not None and made.op_type in ("Conv", "ConvTranspose") and alone


def _constant(node: ir.Node) -> np.ndarray | None:
    """What dequantized integers of a file stand for."""
    known = [value for value in node.inputs if value is not None and value.const_value is not None]
    if node.op_type != "DequantizeLinear" or len(known) != len(node.inputs) or "block_size" in node.attributes:
        return None
    stored, scale, *zero = (value.const_value.numpy() for value in known if value.const_value is not None)
    shape = [1] * stored.ndim
    if scale.size > 1:
        shape[node.attributes.get_int("axis", 1)] = -1
    integers = stored.astype(np.float64) - (zero[0].astype(np.float64).reshape(shape) if zero else 0)
    return np.asarray((integers * scale.astype(np.float64).reshape(shape)).astype(scale.dtype))


def _read_floats(uses: Sequence[tuple[ir.Node, int]], name: str, constant: np.ndarray, graph: ir.Graph) -> None:
    """The constant as floats, for readers that have no integer kernel."""
    if uses:
        tensor = ir.tensor(constant, name=name)
        value = ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(constant.shape), const_value=tensor
        )
        graph.register_initializer(value)
        for reader, place in uses:
            reader.replace_input_with(place, value)


def _commutes(quantize: ir.Node, mover: ir.Node) -> bool:
    scale = quantize.inputs[1]
    one = scale is not None and scale.const_value is not None and scale.const_value.numpy().size == 1
    output = mover.outputs[0]
    return one and len(list(output.uses())) == 1 and not output.is_graph_output() and len(mover.outputs) == 1


def _round_before(mover: ir.Node, index: int, quantize: ir.Node, graph: ir.Graph) -> ir.Node | None:
    """The QuantizeLinear that is put before an input of the mover; None where it is rounded already."""
    value = mover.inputs[index]
    made = value.producer() if value is not None else None
    if value is None or made is None or made.op_type in ("DequantizeLinear", "Pad"):
        return None  # a border of minus infinity has no place on a grid
    name = f"{mover.name}_{index}"
    rounded = ir.node(
        "QuantizeLinear", [value, *quantize.inputs[1:]], dict(quantize.attributes), name=f"{name}_QuantizeLinear"
    )
    back = ir.node("DequantizeLinear", [rounded.outputs[0], *quantize.inputs[1:]], name=f"{name}_DequantizeLinear")
    for node, dtype in ((rounded, quantize.outputs[0].dtype), (back, value.dtype)):
        node.outputs[0].name = f"{node.name}_output"
        node.outputs[0].type = ir.TensorType(dtype) if dtype is not None else None
        node.outputs[0].shape = value.shape
    graph.insert_before(mover, [rounded, back])
    mover.replace_input_with(index, back.outputs[0])
    return rounded
