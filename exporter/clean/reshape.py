"""Reshape in its plainest form."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgewise.exporter.clean.base import GraphPass, add_initializer, attribute_int, constant, dims, integers, is_op


class PlainReshape(GraphPass):
    """Give Reshape a constant shape where at most one dim is unknown, and take off ``allowzero`` where no dim is zero.

    Before::

        x[N,64,8,8] ── Shape ── Gather(0) ── Concat(·, 64, 64) ─┐
        x ──────────────────────────────────────────────────────┴─ Reshape(allowzero=1) ── y[N,64,64]

    After::

        x[N,64,8,8] ── Reshape(-1,64,64) ── y[N,64,64]

    Left alone: two unknown dims that are not both kept in place (a kept one is written 0), and an output of unknown rank.
    """

    def rewrite(self, graph: ir.Graph, opset: int) -> int:
        """Replace in a graph."""
        return sum(_plain(graph, node) for node in list(graph) if is_op(node, "Reshape"))


def _plain(graph: ir.Graph, node: ir.Node) -> bool:
    shape = integers(node.inputs[1])
    changed = False
    if shape is None:
        shape = _written(node)
        if shape is None:
            return False
        node.replace_input_with(1, add_initializer(graph, np.asarray(shape, np.int64), f"{node.outputs[0].name}_shape"))
        node.attributes.pop("allowzero", None)
        return True
    if attribute_int(node, "allowzero", 0) and 0 not in shape:
        node.attributes.pop("allowzero")
        changed = True
    return changed


def _written(node: ir.Node) -> list[int] | None:
    """The output's dims as Reshape takes them: one may be -1, those kept from the input may be 0."""
    if constant(node.inputs[1]) is not None:
        return None
    before, after = dims(node.inputs[0]), dims(node.outputs[0])
    if after is None or 0 in after:
        return None
    written: list[int] = []
    for axis, dim in enumerate(after):
        if isinstance(dim, int):
            written.append(dim)
        elif before is not None and axis < len(before) and before[axis] == dim:
            written.append(0)
        elif -1 not in written:
            written.append(-1)
        else:
            return None
    return written
