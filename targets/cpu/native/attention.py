"""Finds attention in a graph by its structure, whatever the exporter made of heads and windows around it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgewise.targets.cpu.native.context import (
    attribute_int,
    attribute_ints,
    constant_array,
    is_op,
    only_reader,
    quant_of,
)
from edgewise.targets.cpu.native.value import Quant

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass
class Attention:
    """softmax(query · key · scale + mask) · value.

    Attributes:
        query: [..., queries, width].
        key: [..., width, keys].
        value: [..., keys, width], or turned [..., width, keys].
        turned: the product is value · weightsᵀ.
        scale: of the scores.
        mask: added to the scores.
        constant_mask: added to the scores, of their shape or broadcast to it.
        weights_quant: the grid to which the softmax's output is rounded.
        nodes: all but the last, which is the second product.
    """

    query: ir.Value
    key: ir.Value
    value: ir.Value
    turned: bool
    scale: float = 1.0
    mask: ir.Value | None = None
    constant_mask: np.ndarray | None = None
    weights_quant: Quant | None = None
    nodes: list[ir.Node] = field(default_factory=list)


def find(graph: ir.Graph) -> dict[ir.Node, Attention]:
    """Attention subgraphs by their last node."""
    found = {}
    for node in graph:
        if is_op(node, "Softmax") and (match := _match(node)) is not None:
            found[match[0]] = match[1]
    return found


def _match(softmax: ir.Node) -> tuple[ir.Node, Attention] | None:
    scores = softmax.inputs[0]
    rank = None if scores is None or scores.shape is None else len(scores.shape)
    axis = attribute_int(softmax, "axis", -1)
    if axis != -1 and (rank is None or axis != rank - 1):
        return None
    after = _after(softmax)
    before = _before(softmax)
    if after is None or before is None:
        return None
    last, value, turned, quant, behind = after
    product, scale, mask, array, ahead = before
    query, key = product.inputs
    if query is None or key is None or constant_array(query) is not None or constant_array(key) is not None:
        return None
    nodes = [product, *ahead, softmax, *behind]
    return last, Attention(query, key, value, turned, scale, mask, array, quant, nodes)


def _after(softmax: ir.Node) -> tuple[ir.Node, ir.Value, bool, Quant | None, list[ir.Node]] | None:
    """The product with the values, the values, whether it is turned, the rounding between, and the nodes between."""
    current, turned = softmax.outputs[0], False
    between: list[ir.Node] = []
    quant: Quant | None = None
    for _ in range(6):
        node = only_reader(current)
        if node is None:
            return None
        if is_op(node, "MatMul"):
            first = node.inputs[0] is current
            value = node.inputs[1] if first else node.inputs[0]
            if value is None or value is current or first == turned or constant_array(value) is not None:
                return None
            return node, value, turned, quant, between
        if is_op(node, "QuantizeLinear"):
            if quant is not None and quant_of(node) != quant:
                return None
            quant = quant_of(node)
        elif is_op(node, "Transpose"):
            perm = attribute_ints(node, "perm") or []
            rank = len(perm)
            if turned or perm != [*range(rank - 2), rank - 1, rank - 2]:
                return None
            turned = True
        elif not is_op(node, "DequantizeLinear"):
            return None
        between.append(node)
        current = node.outputs[0]
    return None


_Scores = tuple["ir.Node", float, "ir.Value | None", "np.ndarray | None", "list[ir.Node]"]


def _before(softmax: ir.Node) -> _Scores | None:
    """The product of query and key; scale and masks on the way, from the scores on."""
    chain: list[ir.Node] = []
    current = softmax.inputs[0]
    while current is not None and (node := current.producer()) is not None and only_reader(current) is not None:
        if is_op(node, "MatMul"):
            return _collected(node, chain[::-1])
        following = _main_input(node)
        if following is None or len(chain) > 6:
            return None
        chain.append(node)
        current = following
    return None


def _main_input(node: ir.Node) -> ir.Value | None:
    """Of a step between scores and softmax, the input that is the scores."""
    if is_op(node, "Reshape"):
        return node.inputs[0]
    if not is_op(node, "Add", "Mul", "Div"):
        return None
    computed = [value for value in node.inputs if value is not None and constant_array(value) is None]
    if len(computed) == 1:
        return computed[0] if not is_op(node, "Div") or computed[0] is node.inputs[0] else None
    if is_op(node, "Add") and len(computed) == 2:
        return next((value for value in computed if _comes_from_scores(value)), None)
    return None


def _comes_from_scores(value: ir.Value) -> bool:
    for _ in range(5):
        node = value.producer()
        if node is None or only_reader(value) is None:
            return False
        if is_op(node, "MatMul"):
            return True
        following = _main_input(node) if is_op(node, "Mul", "Div", "Reshape") else None
        if following is None:
            return False
        value = following
    return False


def _collected(product: ir.Node, chain: list[ir.Node]) -> _Scores | None:
    """Scale and masks, walking from the product to the softmax."""
    walk = _Walk(product.outputs[0])
    if not all(walk.step(node) for node in chain):
        return None
    array = walk.array
    if array is not None:
        array = _back(array, product.outputs[0], walk.current)
        if array is None or walk.mask is not None:
            return None
    return product, walk.scale, walk.mask, array, chain


@dataclass
class _Walk:
    """What happened to the scores so far."""

    current: ir.Value
    scale: float = 1.0
    mask: ir.Value | None = None
    array: np.ndarray | None = None

    def step(self, node: ir.Node) -> bool:
        """Take a node in; False when attention cannot do what it does."""
        if is_op(node, "Reshape"):
            taken = self._reshape(node)
        else:
            other = node.inputs[1] if node.inputs[0] is self.current else node.inputs[0]
            constant = None if other is None else constant_array(other)
            taken = self._add(other, constant) if is_op(node, "Add") else self._scale(node, constant)
        self.current = node.outputs[0]
        return taken

    def _reshape(self, node: ir.Node) -> bool:
        if self.array is not None:
            self.array = _reshaped(self.array, self.current, node.outputs[0])
            return self.array is not None
        return self.mask is None

    def _add(self, other: ir.Value | None, constant: np.ndarray | None) -> bool:
        if constant is not None:
            self.array = np.asarray(constant if self.array is None else self.array + constant, np.float32)
            return True
        taken, self.mask = self.mask is None, other
        return taken

    def _scale(self, node: ir.Node, constant: np.ndarray | None) -> bool:
        if constant is None or constant.size != 1 or self.mask is not None:
            return False
        factor = float(constant.reshape(-1)[0])
        factor = 1 / factor if is_op(node, "Div") else factor
        self.scale *= factor
        self.array = None if self.array is None else np.asarray(self.array * factor, np.float32)
        return True


def _static(value: ir.Value) -> list[int] | None:
    sizes = [] if value.shape is None else [size for size in value.shape if isinstance(size, int)]
    return sizes if value.shape is not None and len(sizes) == len(value.shape) else None


def _reshaped(array: np.ndarray, before: ir.Value, after: ir.Value) -> np.ndarray | None:
    """The masks so far, in the scores' new shape; None when shapes are not known."""
    old, new = _static(before), _static(after)
    return None if old is None or new is None else np.broadcast_to(array, old).reshape(new)


def _back(array: np.ndarray, product: ir.Value, last: ir.Value) -> np.ndarray | None:
    """The masks in the shape of the product, when there were reshapes on the way."""
    scores, final = _static(product), _static(last)
    if scores is None or final is None or scores == final:
        return array
    return np.broadcast_to(array, final).reshape(scores)
