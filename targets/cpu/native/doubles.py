"""float64 between float32: what exporters leave where Python's numbers met a tensor is computed in float32."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgewise.targets.cpu.native.context import is_op

_WIDE, _NARROW = ir.DataType.DOUBLE, ir.DataType.FLOAT
# Element by element, so that a result in float32 is as near as its operands; not sums, whose roundings add up.
_ELEMENTWISE = (
    "Abs", "Add", "Cast", "Ceil", "Concat", "Constant", "Cos", "Div", "Exp", "Expand", "Flatten", "Floor", "Gather", "Identity", "Log", "Max",
    "Min", "Mul", "Neg", "Pow", "Reciprocal", "Relu", "Reshape", "Round", "Sigmoid", "Sin", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Tanh",
    "Transpose", "Unsqueeze", "Where",
)  # fmt: skip


def narrow(graph: ir.Graph) -> bool:
    """Make float64 float32 where all of it begins and ends with float32 and is element by element; whether it was.

    Constants must have been folded, so that what is computed of them alone had its own precision. A network with float64 among its inputs
    or outputs, sums in float64, or integers made float64 (beyond 2^24 they are no float32) stays as it is, and is refused.
    """
    nodes = [node for node in graph if any(_is_wide(value) for value in (*node.inputs, *node.outputs))]
    ports = any(_is_wide(value) for value in (*graph.inputs, *graph.outputs))
    if not nodes or ports or not all(map(_keeps, nodes)):
        return False
    for value in graph.initializers.values():
        if _is_wide(value) and value.const_value is not None:
            array = value.const_value.numpy().astype(np.float32)
            value.const_value = ir.tensor(array, name=value.name)
            value.type = ir.TensorType(_NARROW)
    for node in nodes:
        if is_op(node, "Cast") and _is_wide(node.outputs[0]):
            node.attributes["to"] = ir.AttrInt64("to", int(_NARROW))
        for value in node.outputs:
            if _is_wide(value):
                value.type = ir.TensorType(_NARROW)
    return True


def _is_wide(value: ir.Value | None) -> bool:
    return value is not None and value.dtype is _WIDE


def _keeps(node: ir.Node) -> bool:
    """Whether float32 does for a node."""
    if is_op(node, "Cast"):
        given = None if node.inputs[0] is None else node.inputs[0].dtype
        return given in (_WIDE, _NARROW) and node.outputs[0].dtype in (_WIDE, _NARROW, ir.DataType.BOOL)
    return is_op(node, *_ELEMENTWISE, "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
