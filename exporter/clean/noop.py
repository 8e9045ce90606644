"""Take out what gives back its input."""

from __future__ import annotations

import onnx_ir as ir

from edgewise.exporter.clean.base import (
    GraphPass,
    attribute_int,
    attribute_ints,
    constant,
    dims,
    integers,
    is_op,
    replace,
)

_SHAPE_ONLY = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile", "Slice", "Resize", "Concat", "Pad")


class RemoveNoOps(GraphPass):
    """Turn nodes that change nothing into Identity, which the identity pass then takes out.

    Before::

        x[N,8,4] ── Reshape(N,8,4) ── Transpose(0,1,2) ── Pad(0…) ── Slice(all) ── y

    After::

        x[N,8,4] ── Identity ── Identity ── Identity ── Identity ── y

    Also Cast to its own dtype, Dropout and Concat of one tensor, Expand, Tile, Resize, Squeeze … to the same shape, pools of a single
    element, Add or Sub of 0, Mul or Div by 1. A node is left alone when a dim of its shapes is unknown, when an arithmetic one would
    broadcast, and where its mask (Dropout) or indices (MaxPool) are used.
    """

    def rewrite(self, graph: ir.Graph, opset: int) -> int:
        """Replace in a graph."""
        found = [node for node in graph if _changes_nothing(node)]
        for node in found:
            for extra in node.outputs[1:]:  # unused; replaced values must pair up
                extra.name = None
            identity = ir.node("Identity", [node.inputs[0]])
            node.outputs[0].name, name = node.outputs[0].name, node.name
            if len(node.outputs) == 1:
                identity.name = name
                replace(graph, [node], [identity])
            else:
                _replace_first(graph, node, identity)
        return len(found)


def _replace_first(graph: ir.Graph, node: ir.Node, identity: ir.Node) -> None:
    before, after = node.outputs[0], identity.outputs[0]
    after.name, after.shape, after.type, identity.name = before.name, before.shape, before.type, node.name
    graph.insert_before(node, identity)
    before.replace_all_uses_with(after, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _changes_nothing(node: ir.Node) -> bool:
    if not node.inputs or node.inputs[0] is None or any(extra.uses() for extra in node.outputs[1:]):
        return False
    if any(extra.is_graph_output() for extra in node.outputs[1:]):
        return False
    if is_op(node, "Dropout"):
        training = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        return len(node.inputs) < 3 or node.inputs[2] is None or (training is not None and not training.any())
    if is_op(node, "Cast"):
        return node.inputs[0].dtype is not None and attribute_int(node, "to", 0) == node.inputs[0].dtype
    if is_op(node, "Transpose"):
        order = attribute_ints(node, "perm")
        return order is not None and order == sorted(order)
    if is_op(node, "MaxPool", "AveragePool"):
        return _pools_single(node)
    if is_op(node, "Add", "Sub", "Mul", "Div"):
        return _is_neutral(node)
    return is_op(node, *_SHAPE_ONLY) and _keeps_shape(node)


def _keeps_shape(node: ir.Node) -> bool:
    before, after = dims(node.inputs[0]), dims(node.outputs[0])
    if is_op(node, "Concat"):
        return len(node.inputs) == 1
    if is_op(node, "Pad"):
        pads = integers(node.inputs[1]) if len(node.inputs) > 1 else attribute_ints(node, "pads")
        return pads is not None and not any(pads)
    if before is None or before != after:
        return False
    if is_op(node, "Slice"):
        steps = integers(node.inputs[4]) if len(node.inputs) > 4 else [1]
        return steps is not None and all(step > 0 for step in steps)
    if is_op(node, "Resize"):
        mode = node.attributes["coordinate_transformation_mode"].as_string() if (
            "coordinate_transformation_mode" in node.attributes
        ) else "half_pixel"  # fmt: skip
        return mode != "tf_crop_and_resize" and all(isinstance(dim, int) for dim in before)
    if is_op(node, "Tile"):
        repeats = integers(node.inputs[1])
        return repeats is not None and set(repeats) == {1}
    return True


def _pools_single(node: ir.Node) -> bool:
    window, strides = attribute_ints(node, "kernel_shape"), attribute_ints(node, "strides")
    pads = attribute_ints(node, "pads") or []
    return window is not None and set(window) == {1} and set(strides or [1]) == {1} and not any(pads)


def _is_neutral(node: ir.Node) -> bool:
    """Adding 0 or multiplying by 1, on the right-hand side and without broadcasting the left-hand one."""
    array = constant(node.inputs[1])
    if array is None or array.size == 0 or array.ndim > len(node.inputs[0].shape or ()):  # type: ignore[union-attr]
        return False
    if array.size > 1 and dims(node.inputs[0]) != dims(node.outputs[0]):
        return False
    neutral = 0 if is_op(node, "Add", "Sub") else 1
    return bool((array == neutral).all())
