"""Softmax over the last axis needs no flattening."""

from __future__ import annotations

import onnx_ir as ir

from edgewise.exporter.clean.base import GraphPass, attribute_int, dims, is_op, only_consumer, replace


class PlainSoftmax(GraphPass):
    """Before opset 13 Softmax worked on two dims; the upgrade says so with a Flatten and a Reshape, which the last axis needs not.

    Before::

        x[N,L,C] ── Flatten(2) ── [N·L,C] ── Softmax(-1) ── [N·L,C] ── Reshape ── y[N,L,C]

    After::

        x[N,L,C] ── Softmax(-1) ── y[N,L,C]

    Left alone: a flattening that merges the last axis with others, and intermediate values that are used elsewhere.
    """

    def rewrite(self, graph: ir.Graph, opset: int) -> int:
        """Replace in a graph."""
        return sum(_plain(graph, node) for node in list(graph) if is_op(node, "Softmax", "LogSoftmax"))


def _plain(graph: ir.Graph, node: ir.Node) -> bool:
    value = node.inputs[0]
    before, after = value.producer() if value is not None else None, only_consumer(node.outputs[0])
    if value is None or before is None or after is None:
        return False
    if not is_op(before, "Flatten", "Reshape") or not is_op(after, "Flatten", "Reshape"):
        return False
    outer, inner = dims(before.inputs[0]), dims(value)
    if only_consumer(value) is not node or outer is None or inner is None or outer != dims(after.outputs[0]):
        return False
    axis = attribute_int(node, "axis", -1)
    if axis not in (-1, len(inner) - 1) or not isinstance(inner[-1], int) or outer[-1:] != inner[-1:]:
        return False
    plain = ir.node(node.op_type, [before.inputs[0]], {"axis": -1}, name=node.name)
    origin = dict(node.metadata_props)
    replace(graph, [before, node, after], [plain])
    plain.metadata_props.update(origin)
    return True
