"""Patterns of several nodes that are one function: GELU, SiLU, HardSwish."""

from __future__ import annotations

from math import isclose, sqrt

import numpy as np
import onnx_ir as ir

from edgewise.targets.cpu.native.activations import PRIVATE
from edgewise.targets.cpu.native.context import attribute_float, constant_array, is_op, only_reader

_TOLERANCE = 1e-4


def rewrite(graph: ir.Graph) -> int:
    """Put one node in the place of each pattern; gives how many were found."""
    found = 0
    for node in list(graph):
        if node.graph is not graph:
            continue
        if is_op(node, "Erf"):
            found += _gelu(graph, node)
        elif is_op(node, "Sigmoid", "HardSigmoid"):
            found += _gated(graph, node)
    return found


def _gelu(graph: ir.Graph, erf: ir.Node) -> bool:
    """X · h · (1 + erf(x / √2)), the factors in any order: GELU, times 2h where that is not 1 (balanced channels)."""
    inner = erf.inputs[0].producer() if erf.inputs[0] is not None else None
    if inner is None or not is_op(inner, "Div", "Mul"):
        return False
    argument, number = _with_number(inner)
    wanted = sqrt(2) if is_op(inner, "Div") else sqrt(0.5)
    if argument is None or number is None or not isclose(number, wanted, rel_tol=_TOLERANCE):
        return False
    addition = only_reader(erf.outputs[0])
    if addition is None or not is_op(addition, "Add") or _with_number(addition)[1] != 1.0:
        return False
    product = _product(addition.outputs[0], argument)
    if product is None:
        return False
    last, half = product
    gelu = ir.node("Gelu", [argument])
    if half.size == 1 and isclose(float(half.reshape(-1)[0]), 0.5, rel_tol=_TOLERANCE):
        _replace(graph, last, gelu)
        return True
    gelu.name, gelu.outputs[0].name = f"{last.name}/gelu", f"{last.outputs[0].name}_gelu"
    gelu.outputs[0].shape, gelu.outputs[0].type = argument.shape, argument.type
    graph.insert_before(last, gelu)
    factor = ir.Value(name=f"{gelu.outputs[0].name}_factor", const_value=ir.tensor((2 * half).astype(np.float32)))
    graph.register_initializer(factor)
    _replace(graph, last, ir.node("Mul", [gelu.outputs[0], factor]))
    return True


def _product(start: ir.Value, argument: ir.Value) -> tuple[ir.Node, np.ndarray] | None:
    """The last of the multiplications that make start · argument · h, and h; None where there are none."""
    current, found = start, None
    factor: np.ndarray = np.ones((), np.float64)
    while (node := only_reader(current)) is not None and is_op(node, "Mul"):
        other = node.inputs[1] if node.inputs[0] is current else node.inputs[0]
        constant, inside = _factor(other, argument)
        if constant is None or (inside and found):
            break
        current, factor = node.outputs[0], np.asarray(factor * constant)
        if inside or found:
            found = node
    return None if found is None else (found, np.asarray(factor))


def _factor(value: ir.Value | None, argument: ir.Value) -> tuple[np.ndarray | None, bool]:
    """A constant, the argument, or the argument times a constant: as (constant, whether the argument is in it)."""
    if value is argument:
        return np.ones((), np.float64), True
    if value is None:
        return None, False
    if (constant := _floats(value)) is not None:
        return constant, False
    node = value.producer()
    if node is not None and is_op(node, "Mul") and argument in node.inputs:
        other = node.inputs[1] if node.inputs[0] is argument else node.inputs[0]
        return (None, False) if other is None else (_floats(other), True)
    return None, False


def _gated(graph: ir.Graph, gate: ir.Node) -> bool:
    """X · sigmoid(x) and x · hardsigmoid(x)."""
    last = only_reader(gate.outputs[0])
    value = gate.inputs[0]
    if last is None or value is None or not is_op(last, "Mul") or value not in last.inputs:
        return False
    if is_op(gate, "Sigmoid"):
        _replace(graph, last, ir.node("Silu", [value], domain=PRIVATE))
        return True
    alpha, beta = attribute_float(gate, "alpha", 0.2), attribute_float(gate, "beta", 0.5)
    if not (isclose(alpha, 1 / 6, rel_tol=_TOLERANCE) and isclose(beta, 0.5, rel_tol=_TOLERANCE)):
        return False
    _replace(graph, last, ir.node("HardSwish", [value]))
    return True


def _with_number(node: ir.Node) -> tuple[ir.Value | None, float | None]:
    """Of a node with a number and something else: both."""
    for index in (1, 0):
        number = _number(node.inputs[index])
        if number is not None and (index == 1 or not is_op(node, "Div")):
            return node.inputs[1 - index], number
    return None, None


def _number(value: ir.Value | None) -> float | None:
    array = None if value is None else _floats(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def _floats(value: ir.Value) -> np.ndarray | None:
    array = constant_array(value)
    return array.astype(np.float64) if array is not None and array.dtype.kind == "f" else None


def _replace(graph: ir.Graph, last: ir.Node, new: ir.Node) -> None:
    old = last.outputs[0]
    new.name = last.name
    name, old.name = old.name, f"{old.name}_before"
    new.outputs[0].name, new.outputs[0].shape, new.outputs[0].type = name, old.shape, old.type
    graph.insert_after(last, new)
    ir.convenience.replace_all_uses_with(old, new.outputs[0], replace_graph_outputs=True)
