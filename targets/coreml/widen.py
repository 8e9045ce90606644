"""Dtypes that Core ML does not compute in: the next wider one that it has, before any node is judged.

float64 and bfloat16 become float32, whole numbers of 16 bits int32, unsigned ones of 32 and 64 bits int64 (which is int32 in Core ML).
Bytes stay bytes where MIL has them (casts, views, quantization); another operator gets casts around it:

    uint8 ─ Add ─ uint8      →      uint8 ─ Cast ─ int32 ─ Add ─ int32 ─ Mod 256 ─ Cast ─ uint8

What ONNX wraps around after an overflow is wrapped around here too.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir

from edgewise.targets.coreml.node import constant, dtype_name
from edgewise.targets.coreml.row import BYTES, Row
from edgewise.targets.coreml.table import table

ORIGINAL = "coreml.dtype"  # in a port's ``meta``: what the network has
NOTES = "coreml.notes"  # in the model's ``meta``

_T = ir.DataType
_FIRST_WITH_BYTES = 17
_WIDER = {
    _T.DOUBLE: _T.FLOAT, _T.BFLOAT16: _T.FLOAT, _T.INT16: _T.INT32, _T.UINT16: _T.INT32, _T.UINT32: _T.INT64, _T.UINT64: _T.INT64,
}  # fmt: skip
_BYTES = {_T.INT8: _T.INT32, _T.UINT8: _T.INT32}
_SMALL = {_T.INT8: (8, True), _T.UINT8: (8, False), _T.INT16: (16, True), _T.UINT16: (16, False)}
_INTEGERS = frozenset({*_SMALL, _T.INT32, _T.INT64, _T.UINT32, _T.UINT64})
_GROWING = frozenset({"Add", "Sub", "Mul", "Div", "Neg", "Abs", "Pow", "Sum", "ReduceSum", "ReduceProd", "ReduceSumSquare",
                      "CumSum", "MatMul", "Gemm"})  # fmt: skip
_CASTS = ("Cast", "CastLike")
_QUANTIZING = ("QuantizeLinear", "DequantizeLinear")
_DTYPE_ATTRIBUTES = ("to", "dtype")


def widen(model: ir.Model, ios: int) -> None:
    """In place; what became of which dtype is noted in the model's ``meta``, and each port's own dtype in its."""
    rows = table()
    for node in list(model.graph):
        row = rows.get((node.domain, node.op_type))
        if row is None or row.control or node.op_type in _QUANTIZING:
            continue
        if node.op_type in _CASTS:
            _wrap_cast(model.graph, node)
        else:
            _around(model.graph, node, row)
    changed = _retype(model, _WIDER if ios >= _FIRST_WITH_BYTES else _WIDER | _BYTES)
    model.meta[NOTES] = [f"{have} is {want} in Core ML: {count} tensors" for (have, want), count in changed.items()]


def _around(graph: ir.Graph, node: ir.Node, row: Row) -> None:
    """Casts before and after an operator that MIL has not in bytes; a wrap after one whose result may have overflown."""
    wide = _T.INT32 if "int32" in row.dtypes else _T.FLOAT if "float32" in row.dtypes else None
    if row.dtypes >= BYTES:
        wide = None
    for index, value in enumerate(node.inputs):
        if wide is not None and value is not None and value.dtype in _BYTES and index not in row.static:
            node.replace_input_with(index, _cast_before(graph, node, value, wide))
    for output in node.outputs:
        kind = output.dtype
        if kind in _SMALL and (node.op_type in _GROWING or (wide is not None and kind in _BYTES)):
            _after(graph, node, output, wide or _T.INT32, node.op_type in _GROWING)


def _wrap_cast(graph: ir.Graph, node: ir.Node) -> None:
    """A cast between integers keeps the lowest bits."""
    source, output = node.inputs[0], node.outputs[0]
    if (
        source is None
        or source.dtype not in _INTEGERS
        or output.dtype not in _SMALL
        or _fits(source.dtype, output.dtype)
    ):
        return
    if node.op_type == "Cast":
        node.attributes["to"] = ir.AttrInt64("to", _T.INT32)
        _after(graph, node, output, _T.INT32, wraps=True)


def _fits(have: ir.DataType, want: ir.DataType) -> bool:
    if have == want:
        return True
    bits, signed = _SMALL.get(have, (64, True))
    room, negative = _SMALL[want]
    return bits < room and (negative or not signed)


def _cast_before(graph: ir.Graph, node: ir.Node, value: ir.Value, wide: ir.DataType) -> ir.Value:
    array = constant(value)
    if array is not None:
        return _initializer(graph, f"{value.name}/{wide.name.lower()}", array.astype(wide.numpy()))
    cast = _node("Cast", [value], node, wide, {"to": int(wide)})
    graph.insert_before(node, cast)
    return cast.outputs[0]


def _after(graph: ir.Graph, node: ir.Node, output: ir.Value, wide: ir.DataType, wraps: bool) -> None:
    """``output`` computes in ``wide``; what reads it reads it brought back to the dtype that it had."""
    kind = output.dtype
    readers, is_output = tuple(output.uses()), output.is_graph_output()
    output.type = ir.TensorType(wide)
    made = _wrapped(graph, node, output, kind) if wraps and kind is not None else []
    last = made[-1].outputs[0] if made else output
    if kind is not None:
        made.append(_node("Cast", [last], node, kind, {"to": int(kind)}))
        made[-1].outputs[0].shape = output.shape
    graph.insert_after(node, made)
    final = made[-1].outputs[0]
    for reader, index in readers:
        reader.replace_input_with(index, final)
    if is_output:
        name, output.name = output.name, f"{output.name}/wide"
        final.name = name
        for place, value in enumerate(graph.outputs):
            if value is output:
                graph.outputs[place] = final


def _wrapped(graph: ir.Graph, node: ir.Node, value: ir.Value, kind: ir.DataType) -> list[ir.Node]:
    """The number that the lowest bits are: modulo 2ⁿ, from -2ⁿ⁻¹ on when there is a sign."""
    bits, signed = _SMALL[kind]
    half = 1 << (bits - 1)
    steps: list[tuple[str, int]] = [("Mod", 1 << bits)]
    if signed:
        steps = [("Add", half), *steps, ("Sub", half)]
    made: list[ir.Node] = []
    for op, number in steps:
        operand = _initializer(graph, f"coreml/{op}/{number}", np.array(number, np.int32))
        made.append(_node(op, [made[-1].outputs[0] if made else value, operand], node, _T.INT32, {}))
    return made


def _initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    if name not in graph.initializers:
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        value.type, value.shape = ir.TensorType(ir.DataType.from_numpy(array.dtype)), ir.Shape(array.shape)
        graph.initializers[name] = value
    return graph.initializers[name]


def _node(op: str, inputs: list[ir.Value], owner: ir.Node, kind: ir.DataType, attributes: dict[str, int]) -> ir.Node:
    """Named as the node that it belongs to, so that a refusal names that."""
    made = ir.node(op, inputs, attributes, num_outputs=1, name=owner.name)
    made.outputs[0].type, made.outputs[0].shape = ir.TensorType(kind), inputs[0].shape
    return made


def _retype(model: ir.Model, wider: dict[ir.DataType, ir.DataType]) -> Counter[tuple[str, str]]:
    """Every tensor of these dtypes, whatever reads and makes it, in the wider one; how many of each."""
    graph, changed = model.graph, Counter[tuple[str, str]]()
    values = [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    for value in values:
        kind = value.dtype
        if kind not in wider or (kind in _BYTES and _is_quantized(value)):
            continue
        changed[str(dtype_name(value)), wider[kind].numpy().name] += 1
        if kind != _T.BFLOAT16:  # which the runtime does not know: float32 to the outside as well
            value.meta[ORIGINAL] = dtype_name(value)
        array = constant(value)
        value.type = ir.TensorType(wider[kind])  # types are shared with the caller's graph: a new one
        if array is not None:
            value.const_value = ir.tensor(_narrowed(array, wider[kind]), name=value.name)
    for node in graph:
        _retype_attributes(node, wider)
    return changed


def _is_quantized(value: ir.Value) -> bool:
    maker = value.producer()
    readers = [node.op_type for node, _ in value.uses()]
    return any(op in _QUANTIZING for op in [*readers, "" if maker is None else maker.op_type])


def _retype_attributes(node: ir.Node, wider: dict[ir.DataType, ir.DataType]) -> None:
    for name in _DTYPE_ATTRIBUTES:
        held = node.attributes.get(name)
        if held is not None and held.type == ir.AttributeType.INT and _T(held.as_int()) in wider:
            node.attributes[name] = ir.AttrInt64(name, wider[_T(held.as_int())])
    value = node.attributes.get("value")
    if value is not None and value.type == ir.AttributeType.TENSOR and value.as_tensor().dtype in wider:
        array = _narrowed(value.as_tensor().numpy(), wider[value.as_tensor().dtype])
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(array))


def _narrowed(array: np.ndarray, kind: ir.DataType) -> np.ndarray:
    """Numbers beyond float32 become its border: they stand for infinity. Unsigned ones beyond int64 stay beyond int32."""
    if array.dtype == np.float64:
        largest = np.finfo(np.float32).max
        array = np.where(np.isfinite(array), np.clip(array, -largest, largest), array)
    if array.dtype == np.uint64:
        array = np.minimum(array, np.uint64(np.iinfo(np.int64).max))
    return array.astype(kind.numpy())
