"""Split a fused projection (query, key and value in one product) before its heads are laid out, not after."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgewise.exporter.clean.base import (
    GraphPass,
    add_initializer,
    attribute_ints,
    dims,
    integers,
    is_op,
    only_consumer,
)


class SplitHeads(GraphPass):
    """Split where the data lies side by side; the five-dimensional transpose becomes small ones.

    Before::

        x[N,L,3·H·D] ── Reshape ── [N,L,3,H,D] ── Transpose(2,0,3,1,4) ── [3,N,H,L,D] ─┬─ Gather(0) ── q[N,H,L,D]
                                                                                       ├─ Gather(1) ── k
                                                                                       └─ Gather(2) ── v

    After::

        x[N,L,3·H·D] ── Split ─┬─ Reshape ── [N,L,H,D] ── Transpose(0,2,1,3) ── q[N,H,L,D]
                               ├─ Reshape ── Transpose ── k
                               └─ Reshape ── Transpose ── v

    Only where the split axis and those behind it are exactly the last axis of x (the parts lie side by side), and every part is
    taken with Gather by one position.
    """

    def rewrite(self, graph: ir.Graph, opset: int) -> int:
        """Replace in a graph."""
        found = [node for node in graph if is_op(node, "Transpose")]
        return sum(_split(graph, node, opset) for node in found)


def _split(graph: ir.Graph, transpose: ir.Node, opset: int) -> bool:
    middle = transpose.inputs[0]
    reshape = middle.producer() if middle is not None else None
    order = attribute_ints(transpose, "perm")
    if reshape is None or order is None or middle is None or not is_op(reshape, "Reshape"):
        return False
    if only_consumer(middle) is not transpose or transpose.outputs[0].is_graph_output():
        return False
    source, shape = dims(reshape.inputs[0]), integers(reshape.inputs[1])
    laid, axis = dims(middle), order[0]
    if source is None or laid is None or shape is None or len(shape) != len(laid):
        return False
    parts, total = laid[axis], source[-1]
    if not isinstance(parts, int) or not isinstance(total, int):
        return False
    takers = _takers(transpose.outputs[0], parts)
    if takers is None:
        return False
    tail = shape[axis + 1 :]
    if parts < 2 or any(size <= 0 for size in tail) or parts * int(np.prod(tail)) != total:
        return False
    new_shape = add_initializer(
        graph, np.asarray(shape[:axis] + tail, np.int64), f"{reshape.inputs[1].name}_part"  # type: ignore[union-attr]
    )  # fmt: skip
    new_order = [place - (place > axis) for place in order[1:]]
    _build(graph, transpose, reshape, takers, new_shape, new_order, opset)
    return True


def _build(
    graph: ir.Graph,
    transpose: ir.Node,
    reshape: ir.Node,
    takers: dict[int, list[ir.Node]],
    shape: ir.Value,
    order: list[int],
    opset: int,
) -> None:
    parts = max(takers) + 1
    attributes: dict[str, int] = {"axis": -1} | ({"num_outputs": parts} if opset >= 18 else {})
    split = ir.node("Split", [reshape.inputs[0]], attributes, num_outputs=parts)
    _add(graph, transpose, split)
    for position, nodes in takers.items():
        part = ir.node("Reshape", [split.outputs[position], shape])
        laid = ir.node("Transpose", part.outputs, {"perm": order})
        _add(graph, transpose, part)
        _add(graph, transpose, laid)
        first = nodes[0].outputs[0]
        laid.outputs[0].name, laid.outputs[0].shape, laid.outputs[0].type = first.name, first.shape, first.type
        laid.outputs[0].meta.update(first.meta)
        for node in nodes:
            node.outputs[0].replace_all_uses_with(laid.outputs[0], replace_graph_outputs=True)
        graph.remove(nodes, safe=True)
    graph.remove([transpose, reshape], safe=True)


def _add(graph: ir.Graph, where: ir.Node, node: ir.Node) -> None:
    node.metadata_props.update(where.metadata_props)
    graph.insert_before(where, node)


def _takers(value: ir.Value, parts: int) -> dict[int, list[ir.Node]] | None:
    """The Gather nodes that take one position of the first axis each, by position; None when anything else uses the value."""
    found: dict[int, list[ir.Node]] = {position: [] for position in range(parts)}
    for node, place in value.uses():
        index = node.inputs[1] if is_op(node, "Gather") and place == 0 and "axis" in node.attributes else None
        position = integers(index)
        if position is None or index is None or index.shape is None or len(index.shape) != 0:
            return None
        if node.attributes["axis"].as_int() != 0 or node.outputs[0].is_graph_output():
            return None
        found[position[0] % parts].append(node)
    return found if all(found.values()) else None
