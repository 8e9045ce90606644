"""Writing constants and QuantizeLinear/DequantizeLinear pairs into a graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


class Writer:
    """Adds initializers and nodes to one graph under names that are free and the same every time."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self._taken: set[str | None] = {*graph.initializers, *(value.name for value in graph.inputs)}
        for node in graph.all_nodes():
            self._taken.update(value.name for value in node.outputs)
            self._taken.add(node.name)

    def free_name(self, wish: str) -> str:
        """The wish, or with a number behind it when it is taken."""
        name, count = wish, 1
        while name in self._taken:
            name, count = f"{wish}_{count}", count + 1
        self._taken.add(name)
        return name

    def constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        """A new initializer."""
        return self.tensor(name, ir.tensor(array))

    def tensor(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        """A new initializer of a tensor that has its dtype already."""
        name = self.free_name(name)
        tensor.name = name
        value = ir.Value(
            name=name, shape=ir.Shape(tensor.numpy().shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self.graph.register_initializer(value)
        return value

    def quantize(
        self, value: ir.Value, scale: ir.Value, zero_point: ir.Value, axis: int | None = None, group: int = 0
    ) -> ir.Node:
        """A QuantizeLinear, in groups along ``axis`` or of a whole tensor; not yet in the graph."""
        attributes = _along(axis, group)
        return self.node("QuantizeLinear", [value, scale, zero_point], attributes, zero_point.dtype, value.shape)

    def dequantize(
        self, value: ir.Value, scale: ir.Value, zero_point: ir.Value, axis: int | None, group: int = 0
    ) -> ir.Node:
        """A DequantizeLinear, along ``axis`` (in groups along it) or of a whole tensor; not yet in the graph."""
        attributes = _along(axis, group)
        return self.node("DequantizeLinear", [value, scale, zero_point], attributes, ir.DataType.FLOAT, value.shape)

    def node(
        self,
        op: str,
        inputs: list[ir.Value],
        attributes: dict[str, int],
        dtype: ir.DataType | None,
        shape: ir.Shape | None,
    ) -> ir.Node:
        """A node of one output, named after its first input; not yet in the graph."""
        name = self.free_name(f"{inputs[0].name}_{op}")
        output = ir.Value(
            name=self.free_name(f"{name}_output"), shape=shape, type=ir.TensorType(dtype) if dtype else None
        )
        return ir.node(op, inputs, attributes, outputs=[output], name=name)


def _along(axis: int | None, group: int) -> dict[str, int]:
    return {} if axis is None else {"axis": axis} | ({"block_size": group} if group else {})


def before_readers(graph: ir.Graph, value: ir.Value, nodes: list[ir.Node]) -> None:
    """Insert nodes right after the one that makes ``value``, or at the graph's start when nothing in it does."""
    producer = value.producer()
    if producer is not None:
        graph.insert_after(producer, nodes)
    else:
        graph.insert_before(graph[0], nodes)
