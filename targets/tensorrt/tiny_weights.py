"""Weights that float16 would lose: scaled up before the product, and the product scaled down."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
_SMALL = 2.0**-9  # below it, weights a 32nd of the largest are no normal float16 any more
_AIM = 2.0**-3
_MOST_SHIFT = 14  # 2^-14 is the smallest normal float16
_LARGEST = float(np.finfo(np.float16).max)


class ScaleTinyWeights(ir.passes.InPlacePass):
    """Multiply tiny weights (a LayerScale folded into them) by a power of two, which is exact, and divide what they make.

    Before::

        x ─► Conv(w: all below 2⁻⁹, b) ─► y

    After::

        x ─► Conv(w · 2ᵏ, b · 2ᵏ) ─► Mul(2⁻ᵏ) ─► y

    Such products could stay in float32 instead, but TensorRT for RTX computes a convolution between casts from and to float16 in
    float16 all the same, with weights that have lost their digits. k is at most 14; a bias that would overflow leaves the node as it is.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Treat the products of the main graph one of whose two factors is constant."""
        found = [node for node in list(model.graph) if node.op_type in _PRODUCTS and not node.domain]
        done = [_scale(node, model.graph) for node in found]
        return ir.passes.PassResult(model, modified=any(done))


def _scale(node: ir.Node, graph: ir.Graph) -> bool:
    places = [index for index, value in enumerate(node.inputs) if value is not None and _constant(value)]
    weights = [index for index in places if index < 2]
    if len(weights) != 1 or (node.op_type == "Gemm" and len(node.inputs) > 2 and 2 not in places):
        return False
    largest = _largest(node.inputs[weights[0]])
    shift = min(int(np.floor(np.log2(_AIM / largest))), _MOST_SHIFT) if 0 < largest < _SMALL else 0
    scaled = [index for index in places if index in (weights[0], 2)]
    if not shift or any(_largest(node.inputs[index]) * 2.0**shift > _LARGEST for index in scaled):
        return False
    for index in scaled:
        node.replace_input_with(index, _times(node.inputs[index], shift, graph))
    _divide(node, shift, graph)
    return True


def _divide(node: ir.Node, shift: int, graph: ir.Graph) -> None:
    """What the node made is made by a Mul now, under the same name."""
    output = node.outputs[0]
    name = output.name or ""
    factor = _stored(f"{name}_scale_down", np.array(2.0**-shift, np.float32), graph)
    readers = list(output.uses())
    scale = ir.node("Mul", [output, factor], name=f"{node.name}_scale_down")
    made = scale.outputs[0]
    made.name, made.type, made.shape = name, output.type, output.shape
    output.name = f"{name}_scaled_up"
    graph.insert_after(node, scale)
    for use in readers:
        use.node.replace_input_with(use.idx, made)
    for index, value in enumerate(graph.outputs):
        if value is output:
            graph.outputs[index] = made


def _times(value: ir.Value | None, shift: int, graph: ir.Graph) -> ir.Value:
    if value is None or value.const_value is None:
        raise ValueError(value)
    return _stored(f"{value.name}_times_2_{shift}", np.ldexp(value.const_value.numpy(), shift), graph)


def _stored(name: str, array: np.ndarray, graph: ir.Graph) -> ir.Value:
    if name in graph.initializers:  # two nodes share the weights
        return graph.initializers[name]
    tensor = ir.tensor(array.astype(np.float32), name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def _constant(value: ir.Value) -> bool:
    return value.const_value is not None and not value.is_graph_input() and value.dtype == ir.DataType.FLOAT


def _largest(value: ir.Value | None) -> float:
    array = value.const_value.numpy() if value is not None and value.const_value is not None else np.zeros(0)
    return float(np.abs(array).max(initial=0.0))
