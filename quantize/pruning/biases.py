"""The vector that is added to a layer's outputs, wherever the graph keeps it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.layers import Layer, constant_of


def bias_of(layer: Layer, outputs: int) -> ir.Value | None:
    """The constant float32 [outputs] that this layer alone adds; None when there is none.

    It is an input of Conv and Gemm. A MatMul has it in the Add behind it, when nothing else reads the product.
    """
    node = layer.node
    if node.op_type == "MatMul":
        uses = list(node.outputs[0].uses())
        if len(uses) != 1 or uses[0].node.op_type != "Add" or node.outputs[0].is_graph_output():
            return None
        return _vector(uses[0].node.inputs[1 - uses[0].idx], outputs)
    scaled = any(name in node.attributes and node.attributes[name].as_float() != 1 for name in ("alpha", "beta"))
    return None if layer.bias is None or scaled else _vector(node.inputs[layer.bias], outputs)


def added_to(layer: Layer) -> ir.Value | None:
    """The computed tensor that is added to what the layer gives, its bias included, when nothing else reads that; else None."""
    found = addition_behind(layer)
    return None if found is None else found[0].inputs[found[1]]


def addition_behind(layer: Layer) -> tuple[ir.Node, int] | None:
    """The Add of what the layer gives, its bias included, and of another computed tensor; and where it reads that one.

    ::

        x ─┬─► layer ─► Add ─► y
           └───(given)───┘
    """
    value = layer.node.outputs[0]
    for _ in range(2):  # a MatMul's bias, then the addition
        uses = list(value.uses())
        if len(uses) != 1 or uses[0].node.op_type != "Add" or uses[0].node.domain or value.is_graph_output():
            return None
        node, index = uses[0].node, 1 - uses[0].idx
        if node.inputs[index] is not None and constant_of(node.inputs[index]) is None:
            return node, index
        value = node.outputs[0]
    return None


def shift_bias(value: ir.Value, shift: NDArray[np.float64]) -> None:
    """Add to a bias in place."""
    array = np.asarray(constant_of(value), np.float32)
    moved = (array.reshape(-1) + shift).astype(np.float32).reshape(array.shape)
    value.const_value = ir.tensor(moved, name=value.name)


def _vector(value: ir.Value | None, outputs: int) -> ir.Value | None:
    array = constant_of(value)
    if value is None or array is None or array.dtype != np.float32 or len(list(value.uses())) != 1:
        return None
    last = array.shape[-1:] if array.ndim else ()
    return value if last == (outputs,) and array.size == outputs and not value.is_graph_output() else None
