"""Weights that alone are integers: dequantized to the type of the product that reads them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_STORED = (ir.DataType.INT4, ir.DataType.INT8)
_TINY = float(np.finfo(np.float16).tiny)


class ShortWeightScales(ir.passes.InPlacePass):
    """Give scales of weights the type in which the product computes, so that no cast stands between.

    Before::

        w: i4 ─► DequantizeLinear(scale: f32) ─► Cast(f16) ─► MatMul ◄─ x: f16

    After::

        w: i4 ─► DequantizeLinear(scale: f16) ─► MatMul ◄─ x: f16

    Between them TensorRT for RTX ends the kernel: the weights would go to memory as float16 before every product. Only where the
    other factor is not dequantized (in integer products the scales stay float32), and where no scale is too small for float16.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Treat every DequantizeLinear of constants whose only reader is a cast."""
        changed = False
        for node in list(model.graph):
            if node.op_type == "DequantizeLinear":
                changed |= _shorten(node, model.graph)
        return ir.passes.PassResult(model, modified=changed)


def _shorten(node: ir.Node, graph: ir.Graph) -> bool:
    stored, scale = node.inputs[0], node.inputs[1]
    readers = list(node.outputs[0].uses())
    if stored is None or stored.const_value is None or stored.dtype not in _STORED or len(readers) != 1:
        return False
    cast = readers[0].node
    dtype = cast.outputs[0].dtype if cast.op_type == "Cast" else None
    if dtype not in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16) or _multiplies_integers(cast):
        return False
    if scale is None or scale.const_value is None or np.abs(scale.const_value.numpy()).min(initial=1.0) < _TINY:
        return False
    name = f"{scale.name}_{dtype.name.lower()}"
    if name not in graph.initializers:
        tensor = ir.tensor(scale.const_value.numpy().astype(dtype.numpy()), dtype=dtype, name=name)
        graph.register_initializer(
            ir.Value(name=name, type=ir.TensorType(dtype), shape=scale.shape, const_value=tensor)
        )
    node.replace_input_with(1, graph.initializers[name])
    node.outputs[0].type = ir.TensorType(dtype)
    for use in list(cast.outputs[0].uses()):
        use.node.replace_input_with(use.idx, node.outputs[0])
    graph.remove(cast, safe=True)
    return True


def _multiplies_integers(cast: ir.Node) -> bool:
    """Whether a product that reads the weights has another factor that was dequantized."""
    others = [value for use in cast.outputs[0].uses() for value in use.node.inputs[:2] if value is not cast.outputs[0]]
    return any(_dequantized(value) for value in others if value is not None)


def _dequantized(value: ir.Value) -> bool:
    producer = value.producer()
    while producer is not None and producer.op_type == "Cast" and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    return producer is not None and producer.op_type == "DequantizeLinear"
