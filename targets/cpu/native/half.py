"""Dtypes that networks have at their ends and libedgewise does not compute in: a Cast behind each such input and before each such output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir

from edgewise.targets.cpu.native.context import is_op
from edgewise.targets.cpu.native.value import Refusal

_WIDER = {
    ir.DataType.FLOAT16: ir.DataType.FLOAT,
    ir.DataType.BFLOAT16: ir.DataType.FLOAT,
    ir.DataType.DOUBLE: ir.DataType.FLOAT,
    ir.DataType.INT16: ir.DataType.INT32,
    ir.DataType.UINT16: ir.DataType.INT32,
}
_ALWAYS = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)  # the others where an input or output has them
_NOT_AT_ENDS = (ir.DataType.BFLOAT16,)  # numpy has none
_EXACT = (ir.DataType.BOOL, ir.DataType.INT8, ir.DataType.UINT8)


def widen(model: ir.Model) -> None:
    """Compute float16, bfloat16 and float64 in float32, and integers of 16 bits in int32, all through a network; its inputs and outputs stay.

    Functions must have been inlined. Roundings to a narrower type between operators are left out, and so is what float64 has beyond float32;
    integers of 16 bits wrap around where they leave the network, not between operators. float64 that is inside alone is ``doubles.py``'s.

    Raises:
        Refusal: a wider integer is cut to 16 bits inside.
    """
    graph = model.graph
    ends = {value.dtype for value in (*graph.inputs, *graph.outputs)}
    wider = {narrow: wide for narrow, wide in _WIDER.items() if narrow in _ALWAYS or narrow in ends}
    moved = {narrow for narrow in wider if narrow not in _NOT_AT_ENDS}
    inputs = [(value, value.dtype) for value in graph.inputs if value.dtype is not None and value.dtype in moved]
    outputs = [(at, one.dtype) for at, one in enumerate(graph.outputs) if one.dtype is not None and one.dtype in moved]
    kept = [value for value in (*graph.inputs, *graph.outputs) if value.dtype in _NOT_AT_ENDS]
    inside = list(ir.traversal.RecursiveGraphIterator(graph))
    for node in inside:
        _check_cut(node, wider)
    for one in {id(node.graph): node.graph for node in inside if node.graph is not None}.values():
        _widen_values([*one.inputs, *one.initializers.values()], wider, keep=[*(value for value, _ in inputs), *kept])
    _widen_values(graph.initializers.values(), wider, keep=())
    for node in inside:
        _widen_attributes(node, wider)
        _widen_values(node.outputs, wider, keep=kept)
    for value, dtype in inputs:
        wide = _WIDER[dtype]
        cast = ir.node("Cast", [value], {"to": int(wide)})
        named = _named(cast, f"{value.name}.{wide.name.lower()}", value, wide)
        for use in list(value.uses()):
            if use.node is not cast:
                use.node.replace_input_with(use.idx, named)
        graph.insert_before(graph[0], cast) if len(graph) else graph.append(cast)
    for index, dtype in outputs:
        _narrow_output(graph, index, dtype)


def _narrow_output(graph: ir.Graph, index: int, dtype: ir.DataType) -> None:
    value = graph.outputs[index]
    wide = _WIDER[dtype]
    if value.is_graph_input():  # given out as it came in
        return
    name, value.name = value.name, f"{value.name}.{wide.name.lower()}"
    cast = ir.node("Cast", [value], {"to": int(dtype)})
    graph.append(cast)
    graph.outputs[index] = _named(cast, str(name), value, dtype)


def _check_cut(node: ir.Node, wider: Mapping[ir.DataType, ir.DataType]) -> None:
    """Cast to 16 bits wraps a wider integer around, which int32 in its place would not."""
    if not is_op(node, "Cast") or node.inputs[0] is None:
        return
    to, given = ir.DataType(node.attributes["to"].as_int()), node.inputs[0].dtype
    made = node.outputs[0]
    if to not in wider or wider[to] is not ir.DataType.INT32 or (made.is_graph_output() and not made.uses()):
        return
    if given is not to and given not in _EXACT:
        raise Refusal(f"{to.name.lower()} of another dtype inside of the network", node)


def _named(cast: ir.Node, name: str, like: ir.Value, dtype: ir.DataType) -> ir.Value:
    made = cast.outputs[0]
    made.name, made.shape, made.type = name, like.shape, ir.TensorType(dtype)
    return made


def _widen_values(
    values: Iterable[ir.Value], wider: Mapping[ir.DataType, ir.DataType], keep: Iterable[ir.Value]
) -> None:
    kept = {id(value) for value in keep}
    for value in values:
        if value.dtype is None or value.dtype not in wider or id(value) in kept:
            continue
        wide = wider[value.dtype]
        if value.const_value is not None:
            value.const_value = ir.tensor(_as(value.const_value.numpy(), wide), name=value.name)
        value.type = ir.TensorType(wide)  # not its dtype: copies of a graph share types


def _as(array: np.ndarray, dtype: ir.DataType) -> np.ndarray:
    with np.errstate(over="ignore"):  # a float64 beyond float32 is infinite there
        return np.asarray(array).astype(dtype.numpy())


def _widen_attributes(node: ir.Node, wider: Mapping[ir.DataType, ir.DataType]) -> None:
    for name, attribute in list(node.attributes.items()):
        if attribute.type is ir.AttributeType.TENSOR and attribute.as_tensor().dtype in wider:
            tensor = attribute.as_tensor()
            node.attributes[name] = ir.AttrTensor(name, ir.tensor(_as(tensor.numpy(), wider[tensor.dtype])))
        elif (
            name in ("to", "dtype") and attribute.type is ir.AttributeType.INT and attribute.as_int() in map(int, wider)
        ):
            node.attributes[name] = ir.AttrInt64(name, int(wider[ir.DataType(attribute.as_int())]))
