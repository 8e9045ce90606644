"""softmax(q·kᵀ·scale + mask)·v as one node, which MIL has from iOS 18 on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from edgewise.targets.coreml.node import constant, only_reader

DOMAIN = "edgewise.coreml"
OP = "ScaledDotProductAttention"
_SMALLEST_RANK = 3


@dataclass(frozen=True)
class _Scores:
    """q·kᵀ with all factors on the way, and what is added before the softmax."""

    query: ir.Value
    keys: ir.Value
    scale: float
    mask: ir.Value | None


def fuse_attention(model: ir.Model) -> int:
    """Replace each match in place.

    ::

        q ─ (Mul) ─ MatMul ─ (Mul, Div) ─ (Add mask) ─ Softmax ─ MatMul ─ y    →    q, k, v, (mask) ─ attention ─ y
        k ─ (Mul) ─ Transpose ┘                            v ┘

    Returns:
        How many there were. A group with a reader in between, or of unequal batch dims, is left as it is.
    """
    count = 0
    for node in list(model.graph):
        if node.op_type == "Softmax" and not node.domain and _fuse(model.graph, node):
            count += 1
    if count:
        model.opset_imports[DOMAIN] = 1
    return count


def _fuse(graph: ir.Graph, softmax: ir.Node) -> bool:
    product = only_reader(softmax.outputs[0])
    rank = len(softmax.outputs[0].shape or ())
    if product is None or product.op_type != "MatMul" or product.inputs[0] is not softmax.outputs[0]:
        return False
    if softmax.attributes.get_int("axis", -1) not in (-1, rank - 1):
        return False
    scores, value = _scores(softmax.inputs[0]), product.inputs[1]
    if scores is None or value is None or not _fits(scores, value):
        return False
    keys, new_nodes = _swapped(scores.keys)
    inputs = [scores.query, keys, value, *([scores.mask] if scores.mask is not None else [])]
    fused = ir.Node(DOMAIN, OP, inputs, [ir.AttrFloat32("scale", scores.scale)], name=product.name)
    new = fused.outputs[0]
    new.shape, new.type = product.outputs[0].shape, product.outputs[0].type
    ir.convenience.replace_nodes_and_values(
        graph, product, [product], [*new_nodes, fused], [product.outputs[0]], [new]
    )  # fmt: skip
    return True


def _scores(value: ir.Value | None) -> _Scores | None:
    """Walk back from the softmax: an addition, scalar factors, the product."""
    mask, scale = None, 1.0
    node = _own_producer(value)
    if node is not None and node.op_type == "Add":
        first, second = node.inputs
        if first is None or second is None:
            return None
        value, mask = (first, second) if _is_product(first) else (second, first)
        node = _own_producer(value)
    while node is not None and (factor := _factor(node)) is not None:
        scale, value = scale * factor[1], factor[0]
        node = _own_producer(value)
    if node is None or node.op_type != "MatMul" or node.inputs[0] is None or node.inputs[1] is None:
        return None
    query, first_scale = _unscaled(node.inputs[0])
    keys, second_scale = _unscaled(node.inputs[1])
    return _Scores(query, keys, scale * first_scale * second_scale, mask)


def _own_producer(value: ir.Value | None) -> ir.Node | None:
    """What makes a value that nobody else reads."""
    return None if value is None or only_reader(value) is None else value.producer()


def _is_product(value: ir.Value) -> bool:
    node = value.producer()
    while node is not None and (factor := _factor(node)) is not None:
        node = factor[0].producer()
    return node is not None and node.op_type == "MatMul"


def _factor(node: ir.Node) -> tuple[ir.Value, float] | None:
    """The other operand and the number, when a node multiplies or divides by a scalar constant."""
    if node.op_type not in ("Mul", "Div") or node.domain:
        return None
    for place in (1, 0) if node.op_type == "Mul" else (1,):
        array, other = constant(node.inputs[place]), node.inputs[1 - place]
        if array is not None and array.size == 1 and other is not None:
            number = float(array.reshape(-1)[0])
            return other, number if node.op_type == "Mul" else 1 / number
    return None


def _unscaled(value: ir.Value) -> tuple[ir.Value, float]:
    node = value.producer()
    factor = None if node is None else _factor(node)
    return (value, 1.0) if factor is None else factor


def _swapped(keys: ir.Value) -> tuple[ir.Value, list[ir.Node]]:
    """K from kᵀ: the last two axes change places, in the transpose that makes it when there is one."""
    rank = len(keys.shape or ())
    source, perm = keys, list(range(rank))
    node = keys.producer()
    if node is not None and node.op_type == "Transpose" and node.inputs[0] is not None:
        source, perm = node.inputs[0], list(node.attributes["perm"].as_ints())
    perm[-1], perm[-2] = perm[-2], perm[-1]
    if perm == list(range(rank)):
        return source, []
    made = ir.Node("", "Transpose", [source], [ir.AttrInt64s("perm", perm)], name=f"{keys.name}_swapped")
    shape = list(keys.shape or ())
    shape[-1], shape[-2] = shape[-2], shape[-1]
    made.outputs[0].shape, made.outputs[0].type = ir.Shape(shape), keys.type
    made.outputs[0].name = f"{keys.name}_swapped"
    return made.outputs[0], [made]


def _fits(scores: _Scores, value: ir.Value) -> bool:
    """Equal ranks of at least 3 and equal batch dims; a mask that has all the keys."""
    shapes = [tuple(operand.shape or ()) for operand in (scores.query, scores.keys, value)]
    if len({len(shape) for shape in shapes}) != 1 or len(shapes[0]) < _SMALLEST_RANK or not math.isfinite(scores.scale):
        return False
    if not isinstance(shapes[0][-1], int) or len({str(shape[:-2]) for shape in shapes}) != 1:
        return False
    mask = scores.mask
    return mask is None or (mask.shape is not None and len(mask.shape) > 0 and mask.shape[-1] == shapes[1][-1])
