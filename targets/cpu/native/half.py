"""Networks in float16 or bfloat16: what lies between inputs and outputs is computed in float32; float16 inputs and outputs stay."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

_NARROW, _WIDE = ir.DataType.FLOAT16, ir.DataType.FLOAT
_INSIDE = (_NARROW, ir.DataType.BFLOAT16)  # libedgewise has no bfloat16 at a network's ends


def widen(model: ir.Model) -> None:
    """Make every float16 and bfloat16 value inside of a network float32, with a Cast behind each float16 input and before each such output.

    Functions must have been inlined. Roundings to either between operators are left out.
    """
    graph = model.graph
    inputs = [value for value in graph.inputs if value.dtype is _NARROW]
    outputs = [index for index, value in enumerate(graph.outputs) if value.dtype is _NARROW]
    ends = [value for value in (*graph.inputs, *graph.outputs) if value.dtype is ir.DataType.BFLOAT16]
    inside = list(ir.traversal.RecursiveGraphIterator(graph))
    for one in {id(node.graph): node.graph for node in inside if node.graph is not None}.values():
        _widen_values([*one.inputs, *one.initializers.values()], keep=[*inputs, *ends])
    _widen_values(graph.initializers.values(), keep=())
    for node in inside:
        _widen_attributes(node)
        _widen_values(node.outputs, keep=ends)
    for value in inputs:
        cast = ir.node("Cast", [value], {"to": int(_WIDE)})
        wide = _named(cast, f"{value.name}.float32", value, _WIDE)
        ir.convenience.replace_all_uses_with(value, wide)
        cast.replace_input_with(0, value)
        graph.insert_before(graph[0], cast) if len(graph) else graph.append(cast)
    for index in outputs:
        value = graph.outputs[index]
        name, value.name = value.name, f"{value.name}.float32"
        cast = ir.node("Cast", [value], {"to": int(_NARROW)})
        graph.append(cast)
        graph.outputs[index] = _named(cast, str(name), value, _NARROW)


def _named(cast: ir.Node, name: str, like: ir.Value, dtype: ir.DataType) -> ir.Value:
    made = cast.outputs[0]
    made.name, made.shape, made.type = name, like.shape, ir.TensorType(dtype)
    return made


def _widen_values(values: Iterable[ir.Value], keep: Iterable[ir.Value]) -> None:
    kept = {id(value) for value in keep}
    for value in values:
        if value.dtype not in _INSIDE or id(value) in kept:
            continue
        if value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
        value.type = ir.TensorType(_WIDE)  # not its dtype: copies of a graph share types


def _widen_attributes(node: ir.Node) -> None:
    for name, attribute in list(node.attributes.items()):
        if attribute.type is ir.AttributeType.TENSOR and attribute.as_tensor().dtype in _INSIDE:
            node.attributes[name] = ir.AttrTensor(name, ir.tensor(attribute.as_tensor().numpy().astype(np.float32)))
        elif (
            name in ("to", "dtype")
            and attribute.type is ir.AttributeType.INT
            and attribute.as_int() in map(int, _INSIDE)
        ):
            node.attributes[name] = ir.AttrInt64(name, int(_WIDE))
