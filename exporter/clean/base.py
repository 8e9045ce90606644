"""What our cleaning passes share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

# Shapes, indices, axes and scalars: larger constants are never looked into by value.
_SMALL = 4096


class GraphPass(ir.passes.InPlacePass):
    """A pass over the main graph that counts what it changed; bodies of control flow are left as they are.

    ``changed`` is the number of changes in the last call.
    """

    changed = 0

    @abstractmethod
    def rewrite(self, graph: ir.Graph, opset: int) -> int:
        """Change a graph; give the number of changes."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run over a model."""
        self.changed = self.rewrite(model.graph, model.opset_imports.get("", 1))
        return ir.passes.PassResult(model, modified=self.changed > 0)


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Whether a node is one of the given operators of ONNX's own domain."""
    return node is not None and node.domain in ("", "ai.onnx") and node.op_type in op_types


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array of an initializer or a constant, whatever its size; None for what is computed or passed in."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def integers(value: ir.Value | None) -> list[int] | None:
    """The entries of a small constant of integers, such as a shape or axes."""
    if value is None or (value.const_value is not None and value.const_value.size > _SMALL):
        return None
    array = constant(value)
    return None if array is None or array.dtype.kind not in "iu" else [int(entry) for entry in array.reshape(-1)]


def dims(value: ir.Value | None) -> list[int | str] | None:
    """A value's dims, symbolic ones as their names; None when the rank or any dim is unknown."""
    if value is None or value.shape is None:
        return None
    found = [dim if isinstance(dim, int) else dim.value for dim in value.shape]
    return None if any(dim is None for dim in found) else [dim for dim in found if dim is not None]


def attribute_int(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute or its default."""
    return node.attributes[name].as_int() if name in node.attributes else default


def attribute_ints(node: ir.Node, name: str) -> list[int] | None:
    """An attribute of integers, or None when the node lacks it."""
    return list(node.attributes[name].as_ints()) if name in node.attributes else None


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The node that uses a value, if it is the only one, in the same graph, and the value is no output of it."""
    users = list(value.uses())
    if len(users) != 1 or value.is_graph_output() or users[0].node.graph is not value.graph:
        return None
    return users[0].node


def add_initializer(graph: ir.Graph, array: np.ndarray, name: str) -> ir.Value:
    """Register a constant under a name that is free: ``name``, else ``name_1``, ``name_2`` and so on."""
    free, count = name, 0
    while free in graph.initializers:
        count += 1
        free = f"{name}_{count}"
    array = np.asarray(array, order="C")  # ascontiguousarray would give a scalar an axis
    value = ir.Value(
        name=free,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        const_value=ir.Tensor(array, name=free),
    )
    graph.register_initializer(value)
    return value


def with_array(graph: ir.Graph, value: ir.Value | None, array: np.ndarray) -> ir.Value:
    """A constant with another array: the same value, name and all, where nothing else uses it, else a new one beside it."""
    name = "" if value is None or value.name is None else value.name
    if value is not None and value.is_initializer() and len(value.uses()) == 1 and not value.is_graph_output():
        value.const_value = ir.Tensor(np.asarray(array, order="C"), name=name)
        value.shape = ir.Shape(array.shape)
        return value
    return add_initializer(graph, array, name or "weight")


def replace(graph: ir.Graph, old: Sequence[ir.Node], new: Sequence[ir.Node]) -> None:
    """Put ``new`` in the place of ``old`` (the last one's outputs take over the last old one's, with their names and types)."""
    last, final = old[-1], new[-1]
    for before, after in zip(last.outputs, final.outputs, strict=True):
        after.name, after.shape, after.type = before.name, before.shape, before.type
        after.meta.update(before.meta)
    for node in new:
        node.metadata_props.update(last.metadata_props)
        node.name = node.name or last.name
    ir.convenience.replace_nodes_and_values(graph, last, old, new, last.outputs, final.outputs)
