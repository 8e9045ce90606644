"""Linear layers that read rows rounded at run time, as one node: what ``quantize`` writes for the schemes ``w8d8`` and ``w8d8g32``."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgewise.targets.cpu.native.activations import PRIVATE
from edgewise.targets.cpu.native.context import attribute_int, constant_array, is_op

DYNAMIC_LINEAR = "DynamicLinear"
_STEPS = 255.0
_LEAST_SCALE = 1e-30


def join_rounding(graph: ir.Graph) -> int:
    """Put one node in the place of each MatMul or Gemm whose first factor is rounded so; gives how many were found.

    Before::

        x ─► Reshape ─┬─► ReduceMax, ReduceMin ─► … ─► scale, zero point
                      └─► Q(scale, zero point, block_size 32) ─► DQ ─► Reshape ─► MatMul(w)

    After::

        x ─► DynamicLinear(w, group 32)
    """
    found = 0
    for node in list(graph):
        if not is_op(node, "MatMul", "Gemm") or attribute_int(node, "transA", 0):
            continue
        match = _rounded_rows(node.inputs[0])
        if match is not None:
            _join(graph, node, *match)
            found += 1
    return found


def _join(graph: ir.Graph, node: ir.Node, rows: ir.Value, group: int) -> None:
    attributes = [ir.AttrInt64("group", group), *node.attributes.values()]
    joined = ir.node(DYNAMIC_LINEAR, [rows, *node.inputs[1:]], domain=PRIVATE, name=node.name)
    for attribute in attributes:
        joined.attributes.add(attribute)
    old, new = node.outputs[0], joined.outputs[0]
    name, old.name = old.name, f"{old.name}_before"
    new.name, new.shape, new.type = name, old.shape, old.type
    graph.insert_after(node, joined)
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _rounded_rows(value: ir.Value | None) -> tuple[ir.Value, int] | None:
    """What is rounded, and by ranges of how many neighbours; None where it is not, or in another way."""
    back = _maker(value, "Reshape")
    dequantize = None if back is None else _maker(back.inputs[0], "DequantizeLinear")
    quantize = None if dequantize is None else _maker(dequantize.inputs[0], "QuantizeLinear")
    if (
        value is None
        or dequantize is None
        or quantize is None
        or len(quantize.inputs) < 3
        or len(dequantize.inputs) < 3
    ):
        return None
    grouped, scale, point = quantize.inputs[:3]
    reshape = _maker(grouped, "Reshape")
    rows = None if reshape is None else reshape.inputs[0]
    if grouped is None or reshape is None or rows is None or rows.shape is None or not _same_dims(rows, value):
        return None
    rank, group = len(rows.shape), attribute_int(quantize, "block_size", 0)
    if tuple(dequantize.inputs[1:3]) != (scale, point) or not _groups(rows, group, reshape.inputs[1]):
        return None
    for node in (quantize, dequantize):
        if attribute_int(node, "axis", 1) % (rank + 1) != rank or attribute_int(node, "block_size", 0) != group:
            return None
    least = _least_of_point(point, scale)
    most = _most_of_scale(scale, least)
    return (rows, group) if least and most and _folds(grouped, most, least, rank) else None


def _same_dims(first: ir.Value, second: ir.Value) -> bool:
    return first.shape is not None and second.shape is not None and list(first.shape) == list(second.shape)


def _least_of_point(point: ir.Value | None, scale: ir.Value | None) -> ir.Value | None:
    """Of uint8(round(−least / scale))."""
    cast = _maker(point, "Cast")
    if cast is None or attribute_int(cast, "to", 0) != int(ir.DataType.UINT8):
        return None
    quotient = _maker(_through(_through(cast.inputs[0], "Round"), "Neg"), "Div")
    return quotient.inputs[0] if quotient is not None and quotient.inputs[1] is scale else None


def _most_of_scale(scale: ir.Value | None, least: ir.Value | None) -> ir.Value | None:
    """Of max((most − least) / 255, a tiny number)."""
    quotient = _maker(_beside(scale, "Max", _LEAST_SCALE), "Div")
    if quotient is None or not _is_number(quotient.inputs[1], _STEPS):
        return None
    difference = _maker(quotient.inputs[0], "Sub")
    return difference.inputs[0] if difference is not None and difference.inputs[1] is least else None


def _folds(grouped: ir.Value, most: ir.Value, least: ir.Value, axis: int) -> bool:
    """Whether these are the largest and the smallest along the last axis, widened to hold zero."""
    for value, op, fold in ((most, "Max", "ReduceMax"), (least, "Min", "ReduceMin")):
        end = _maker(_beside(value, op, 0.0), fold)
        if end is None or end.inputs[0] is not grouped or not attribute_int(end, "keepdims", 1) or len(end.inputs) < 2:
            return False
        axes = None if end.inputs[1] is None else constant_array(end.inputs[1])
        if axes is None or [int(one) % (axis + 1) for one in axes.reshape(-1)] != [axis]:
            return False
    return True


def _groups(rows: ir.Value, group: int, shape: ir.Value | None) -> bool:
    """Whether a Reshape to this shape splits the last axis alone, into groups."""
    sizes = None if shape is None else constant_array(shape)
    given = list(rows.shape or ())
    if sizes is None or sizes.size != len(given) + 1 or not isinstance(given[-1], int) or group < 1:
        return False
    kept = all(size == 0 or size == dim for size, dim in zip(sizes[:-2], given[:-1], strict=True))
    return kept and given[-1] % group == 0 and [int(size) for size in sizes[-2:]] == [given[-1] // group, group]


def _maker(value: ir.Value | None, op: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if is_op(node, op) else None


def _through(value: ir.Value | None, op: str) -> ir.Value | None:
    node = _maker(value, op)
    return None if node is None else node.inputs[0]


def _beside(value: ir.Value | None, op: str, number: float) -> ir.Value | None:
    """The other operand of an operator of two, of which one is this number."""
    node = _maker(value, op)
    if node is None or len(node.inputs) != 2:
        return None
    for index in (0, 1):
        if _is_number(node.inputs[1 - index], number):
            return node.inputs[index]
    return None


def _is_number(value: ir.Value | None, number: float) -> bool:
    array = None if value is None else constant_array(value)
    return array is not None and array.size == 1 and bool(array.reshape(-1)[0] == np.float32(number))
