"""Taking one slice and dropping its axis is a Gather."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgewise.exporter.clean.base import GraphPass, add_initializer, dims, integers, is_op, only_consumer, replace


class SliceSqueezeToGather(GraphPass):
    """One position of an axis, taken by Slice and Squeeze, is taken by Gather.

    Before::

        x[3,N,H] ── Slice(starts=1, ends=2, axes=0) ── [1,N,H] ── Squeeze(0) ── y[N,H]

    After::

        x[3,N,H] ── Gather(1, axis=0) ── y[N,H]

    Left alone: a slice that is used elsewhere, of more than one position, or along more than one axis.
    """

    def rewrite(self, graph: ir.Graph, opset: int) -> int:
        """Replace in a graph."""
        count = 0
        for node in [node for node in graph if is_op(node, "Slice")]:
            squeeze = only_consumer(node.outputs[0])
            place = _single_position(node)
            if place is None or squeeze is None or not is_op(squeeze, "Squeeze"):
                continue
            axis, position = place
            if _squeezed(squeeze) != [axis]:
                continue
            index = add_initializer(graph, np.asarray(position, np.int64), f"index_{position}")
            gather = ir.node("Gather", [node.inputs[0], index], {"axis": axis})
            replace(graph, [node, squeeze], [gather])
            count += 1
        return count


def _single_position(node: ir.Node) -> tuple[int, int] | None:
    """Axis and position of a Slice that takes one position of one axis of known size."""
    shape = dims(node.inputs[0])
    parts = [integers(value) for value in node.inputs[1:]]
    if shape is None or len(parts) < 3 or any(part is None or len(part) != 1 for part in parts):
        return None
    (start,), (end,), (axis,), *steps = [part for part in parts if part is not None]
    axis %= len(shape)
    size = shape[axis]
    if not isinstance(size, int) or (steps and steps[0] != [1]):
        return None
    start, end = (min(max(bound + size if bound < 0 else bound, 0), size) for bound in (start, end))
    return (axis, start) if end - start == 1 else None


def _squeezed(node: ir.Node) -> list[int] | None:
    shape = dims(node.inputs[0])
    axes = integers(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if shape is None or axes is None else [axis % len(shape) for axis in axes]
