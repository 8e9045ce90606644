"""Dtypes that networks have at their ends and libedgewise does not compute in: a Cast behind each such input and before each such output."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgewise.runtime.onnx_widen import widen_graph
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
    inputs = [(value, value.dtype) for value in graph.inputs if value.dtype is not None and value.dtype in wider]
    outputs = [(at, one.dtype) for at, one in enumerate(graph.outputs) if one.dtype is not None and one.dtype in wider]
    for node in ir.traversal.RecursiveGraphIterator(graph):
        _check_cut(node, wider)
    widen_graph(model, wider, keep=graph.inputs)
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
