"""Two layers written in place of one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.layers import Layer, attribute, constant_of
from edgewise.quantize.pruning.matrices import weight_value

Factor = NDArray[np.float32]


def place_factors(layer: Layer, left: Factor, right: Factor) -> None:
    """Let a layer compute left · (right · x) rather than its weights times x.

    Before::

        x ─► Conv[O ← I, 3x3] ─► y

    After; the second one is the node that was there, with its bias::

        x ─► Conv[r ← I, 3x3] ─► Conv[O ← r, 1x1] ─► y

    Args:
        layer: Conv of one group, Gemm or MatMul with constant weights of its own.
        left: float32 [outputs, rank].
        right: float32 [rank, columns], columns as in ``matrices.as_matrices``.
    """
    node = layer.node
    old = weight_value(layer)
    array = np.asarray(constant_of(old))
    attributes = dict(node.attributes)
    if node.op_type == "Conv":
        kernel = array.shape[2:]
        thin = right.reshape(len(right), *kernel, array.shape[1])
        first, second = np.moveaxis(thin, -1, 1), left.reshape(*left.shape, *[1] * len(kernel))
        for name in ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"):
            node.attributes.pop(name, None)
    elif attribute(node, "transB", 0):
        first, second, attributes = right, left, {"transB": ir.AttrInt64("transB", 1)}
    else:
        first, second, attributes = right.T, left.T, {}
    _insert(node, old, np.ascontiguousarray(first), attributes)
    old.const_value = ir.tensor(np.ascontiguousarray(second), name=old.name)
    old.shape = ir.Shape(second.shape)


def _insert(node: ir.Node, old: ir.Value, first: Factor, attributes: dict[str, ir.Attr]) -> None:
    graph, x, y = node.graph, node.inputs[0], node.outputs[0]
    if graph is None or x is None:
        raise ValueError(node.name)
    name = f"{old.name}_thin"
    weights = ir.Value(
        name=name,
        type=ir.TensorType(ir.DataType.FLOAT),
        shape=ir.Shape(first.shape),
        const_value=ir.tensor(first, name=name),
    )
    graph.register_initializer(weights)
    thin = ir.Node("", node.op_type, [x, weights], attributes=list(attributes.values()), name=f"{node.name}_thin")
    made = thin.outputs[0]
    made.name, made.type = f"{y.name}_thin", y.type
    if y.shape is not None:
        axis = 1 if node.op_type == "Conv" else len(y.shape) - 1
        rank = first.shape[0] if node.op_type == "Conv" or "transB" in attributes else first.shape[1]
        made.shape = ir.Shape([rank if place == axis else dim for place, dim in enumerate(y.shape)])
    graph.insert_before(node, thin)
    node.replace_input_with(0, made)
