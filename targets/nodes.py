"""Nodes and tensors of a graph, as targets speak of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgewise.runtime.tensors import TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir


def node_names(graph: ir.Graph) -> list[str]:
    """A name for each node, in order: its own, or ``OP_INDEX`` when it has none or one that is taken."""
    names: list[str] = []
    taken: set[str] = set()
    for index, node in enumerate(graph):
        name = node.name if node.name and node.name not in taken else f"{node.op_type}_{index}"
        while name in taken:
            name += "_"
        taken.add(name)
        names.append(name)
    return names


def op_name(node: ir.Node) -> str:
    """``Conv``, or ``some.domain::Op`` outside ONNX's own domain."""
    return f"{node.domain}::{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


def bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs inside a node: branches of If, bodies of Loop and Scan."""
    for attribute in node.attributes.values():
        if attribute.type.name == "GRAPH":
            yield attribute.as_graph()
        elif attribute.type.name == "GRAPHS":
            yield from attribute.as_graphs()


def dtype_name(value: ir.Value | None) -> str:
    """A tensor's dtype by numpy's name; ``unknown`` when the graph does not say."""
    return "unknown" if value is None or value.dtype is None else str(value.dtype.numpy().name)


def tensor_spec(value: ir.Value) -> TensorSpec:
    """An input or output; a dim that the graph does not name is called ``?``."""
    dims = () if value.shape is None else tuple(value.shape)
    return TensorSpec(
        value.name or "",
        dtype_name(value),
        tuple(dim if isinstance(dim, int) else str(dim.value or "?") for dim in dims),
    )
