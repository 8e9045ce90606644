"""Nodes for a graph, one call each; and what rules ask of the values that they are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgewise.targets.cpu.native.context import constant_array
from edgewise.targets.cpu.native.value import Refusal

Operand = ir.Value | np.ndarray | int | float | Sequence[int] | None


class Writer:
    """Collects the nodes of one rule.

    Attributes:
        nodes: so far, in order.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.nodes: list[ir.Node] = []

    def __call__(self, op: str, *inputs: Operand, **attributes: Any) -> ir.Value:
        """A node of one output. Arrays are constants; a whole number or a list of them is int64, another number float32."""
        return self.many(op, *inputs, outputs=1, **attributes)[0]

    def many(self, op: str, *inputs: Operand, outputs: int, **attributes: Any) -> Sequence[ir.Value]:
        """A node of several outputs."""
        given = [self.value(one) for one in inputs]
        return self.added(ir.node(op, given, attributes, num_outputs=outputs))

    def value(self, operand: Operand) -> ir.Value | None:
        """An operand as a value of the graph."""
        if operand is None or isinstance(operand, ir.Value):
            return operand
        kind = None if isinstance(operand, np.ndarray) else np.float32 if isinstance(operand, float) else np.int64
        array = np.asarray(operand, kind)
        made = self.added(ir.node("Constant", [], {"value": ir.tensor(array)}))[0]
        made.dtype, made.shape, made.const_value = (
            ir.DataType.from_numpy(array.dtype),
            ir.Shape(array.shape),
            ir.tensor(array),
        )
        return made

    def add(self, node: ir.Node) -> ir.Value:
        """A node of one output that is made already."""
        return self.added(node)[0]

    def added(self, node: ir.Node) -> Sequence[ir.Value]:
        """The outputs of a node that is made already."""
        node.name = f"{self._prefix}.{node.op_type}.{len(self.nodes)}"
        for index, output in enumerate(node.outputs):
            output.name = f"{node.name}.{index}"
        self.nodes.append(node)
        return node.outputs

    def discard(self) -> None:
        """Give the nodes up, so that no value counts them among its readers."""
        for node in self.nodes:
            for index in range(len(node.inputs)):
                node.replace_input_with(index, None)
        self.nodes.clear()

    def adopt(self, graph: ir.Graph, inputs: Sequence[ir.Value | None]) -> list[ir.Value]:
        """A copy of the nodes of a body, its inputs bound to values; gives what its outputs are."""
        body = graph.clone(allow_outer_scope_values=True)
        bound: dict[ir.Value, ir.Value | None] = dict(zip(body.inputs, inputs, strict=True))
        for initial in body.initializers.values():
            bound[initial] = self.value(_array(initial))
        outputs, nodes = list(body.outputs), list(body)
        body.outputs.clear()
        for node in nodes:
            for index, value in enumerate(node.inputs):
                if value in bound:
                    node.replace_input_with(index, bound[value])
        for node in nodes:
            body.remove(node)
            self.added(node)
        found = [bound.get(value, value) for value in outputs]
        return [value for value in found if value is not None]

    # -- a few words that rules say often

    def reshape(self, value: ir.Value, sizes: Sequence[int]) -> ir.Value:
        """In another shape; 0 is no size here but 0 elements."""
        return self("Reshape", value, list(sizes), allowzero=1 if 0 in sizes else 0)

    def cut(self, value: ir.Value, axis: int, start: int, end: int) -> ir.Value:
        """A part of one axis."""
        return self("Slice", value, [start], [end], [axis])

    def pick(self, value: ir.Value, axis: int, index: int) -> ir.Value:
        """One of an axis, without that axis."""
        return self("Squeeze", self.cut(value, axis, index, index + 1), [axis])


def _array(value: ir.Value) -> np.ndarray:
    array = constant_array(value)
    if array is None:
        raise Refusal(f"a body whose constant {value.name!r} has no value")
    return array


def shape_of(value: ir.Value | None) -> list[int]:
    """The sizes of a value.

    Raises:
        Refusal: the input is left out, or a size is not known.
    """
    if value is None:
        raise Refusal("an input that is left out")
    if value.shape is None or not value.shape.is_static():
        raise Refusal(f"the sizes of {value.name!r} are not known; fix those of the inputs with --input")
    return [int(size) for size in value.shape.numpy()]


def rank_of(value: ir.Value) -> int:
    """The number of axes.

    Raises:
        Refusal: it is not known.
    """
    if value.shape is None:
        raise Refusal(f"the number of axes of {value.name!r} is not known")
    return len(value.shape)


def given(node: ir.Node, index: int) -> ir.Value | None:
    """An input, or None when it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def need(node: ir.Node, index: int) -> ir.Value:
    """An input.

    Raises:
        Refusal: it is left out.
    """
    value = given(node, index)
    if value is None:
        raise Refusal("an input that is left out")
    return value


def constant(node: ir.Node, index: int) -> np.ndarray | None:
    """A constant input; None when it is left out.

    Raises:
        Refusal: it is computed.
    """
    value = given(node, index)
    if value is None:
        return None
    array = constant_array(value)
    if array is None:
        raise Refusal(f"input {index} is computed, and must be a constant")
    return array


def numpy_dtype(value: ir.Value) -> np.dtype[Any]:
    """Of a value's elements.

    Raises:
        Refusal: it is not known.
    """
    if value.dtype is None:
        raise Refusal(f"the dtype of {value.name!r} is not known")
    return value.dtype.numpy()
