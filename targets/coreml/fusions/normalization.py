"""Normalizations that an exporter wrote out in small operations, as PyTorch's did before opset 17 and TensorFlow's does, as one node each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from edgewise.targets.coreml.node import constant, only_reader

_RANKS_OF_INSTANCE_NORM = (3, 4)  # that MIL's operation has


@dataclass(frozen=True)
class _Parts:
    """(x - mean(x)) / sqrt(variance(x) + epsilon) over the axes, and what it is multiplied by before the mean is taken off."""

    x: ir.Value
    axes: list[int]
    epsilon: float
    gamma: np.ndarray | None = None
    beta: np.ndarray | None = None


def fuse_normalizations(model: ir.Model) -> int:
    """Replace each match in place.

    ::

        x ─ ReduceMean ─ Sub ─ Pow ─ ReduceMean ─ Add ε ─ Sqrt ─ Div ─ (Mul γ) ─ (Add β) ─ y    →    x ─ LayerNormalization ─ y
        └────────────────┘ └───────────────────────────────────┘

    Division may be by ``Reciprocal`` and ``Mul``, and γ may come first: x·γ/σ + (β - mean·γ/σ). With a γ per channel of images or sequences, over
    all that follows the channels, it is an ``InstanceNormalization``. γ and β must be constants; others stay what they are.

    Returns:
        How many there were.
    """
    count = 0
    for node in list(model.graph):
        if (parts := _parts(node)) is not None and _kind(parts):
            _replace(model.graph, node, parts)
            count += 1
    return count


def _parts(node: ir.Node) -> _Parts | None:
    """Of the node that a written out normalization ends in, γ and β aside."""
    if node.op_type == "Add":
        return _with_factor_first(node)
    for apart, inverse in _operands(node):
        centered, spread = _centered(apart), _inverse_deviation(inverse, divides=node.op_type == "Div")
        if centered is not None and spread is not None and centered == spread[:2]:
            return _Parts(centered[0], list(centered[1]), spread[2])
    return None


def _operands(node: ir.Node) -> Iterator[tuple[ir.Value, ir.Value]]:
    """The two of a product, each way round; of a quotient as they are."""
    if node.domain or node.op_type not in ("Mul", "Div"):
        return
    first, second = node.inputs
    if first is not None and second is not None:
        yield first, second
        if node.op_type == "Mul":
            yield second, first


def _made_by(value: ir.Value | None, op: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op and not node.domain else None


def _mean(value: ir.Value | None) -> tuple[ir.Value, tuple[int, ...]] | None:
    """What a mean is taken of, and the axes, counted from 0; they stay with one element."""
    node = _made_by(value, "ReduceMean")
    if node is None or node.inputs[0] is None or not node.attributes.get_int("keepdims", 1):
        return None
    rank = None if node.inputs[0].shape is None else len(node.inputs[0].shape)
    axes = list(node.attributes["axes"].as_ints()) if "axes" in node.attributes else []
    if len(node.inputs) > 1 and (given := constant(node.inputs[1])) is not None:
        axes = given.reshape(-1).tolist()
    if rank is None or not axes:
        return None
    return node.inputs[0], tuple(sorted(axis % rank for axis in axes))


def _centered(value: ir.Value) -> tuple[ir.Value, tuple[int, ...]] | None:
    """The tensor and the axes, of x - mean(x)."""
    node = _made_by(value, "Sub")
    mean = None if node is None else _mean(node.inputs[1])
    return mean if node is not None and mean is not None and mean[0] is node.inputs[0] else None


def _inverse_deviation(value: ir.Value, *, divides: bool) -> tuple[ir.Value, tuple[int, ...], float] | None:
    """x, the axes and epsilon, of 1 / sqrt(variance(x) + epsilon); of the root alone where it is what divides."""
    if not divides:
        node = _made_by(value, "Reciprocal")
        if node is None or node.inputs[0] is None:
            return None
        value = node.inputs[0]
    root = _made_by(value, "Sqrt")
    total = None if root is None else _made_by(root.inputs[0], "Add")
    if total is None:
        return None
    for place in (0, 1):
        epsilon, variance = constant(total.inputs[place]), _mean(total.inputs[1 - place])
        if epsilon is None or epsilon.size != 1 or variance is None:
            continue
        centered = _squared(variance[0])
        if centered is not None and centered[1] == variance[1]:
            return *centered, float(epsilon.reshape(-1)[0])
    return None


def _squared(value: ir.Value) -> tuple[ir.Value, tuple[int, ...]] | None:
    """The tensor and the axes, of (x - mean(x))²."""
    node = value.producer()
    if node is None or node.domain or node.inputs[0] is None:
        return None
    if node.op_type == "Pow":
        power = constant(node.inputs[1])
        squares = power is not None and power.size == 1 and float(power.reshape(-1)[0]) == 2
    else:
        squares = node.op_type == "Mul" and node.inputs[0] is node.inputs[1]
    return _centered(node.inputs[0]) if squares else None


def _with_factor_first(node: ir.Node) -> _Parts | None:
    """x·f + (β - mean·f), where f is γ/σ."""
    for place in (0, 1):
        scaled, rest = _made_by(node.inputs[place], "Mul"), _made_by(node.inputs[1 - place], "Sub")
        beta = None if rest is None else constant(rest.inputs[0])
        shifted = None if rest is None else _made_by(rest.inputs[1], "Mul")
        if scaled is None or shifted is None or beta is None:
            continue
        for x, factor in _operands(scaled):
            mean = next((_mean(other) for other, same in _operands(shifted) if same is factor), None)
            found = None if mean is None or mean[0] is not x else _factored(factor, beta)
            if found is not None and (found.x, tuple(found.axes)) == mean:
                return found
    return None


def _factored(factor: ir.Value, beta: np.ndarray) -> _Parts | None:
    """Of f = γ/σ; γ and β must be numbers of the normalized axes or of the channels."""
    node = _made_by(factor, "Mul")
    for inverse, other in _operands(node) if node is not None else ():
        gamma, spread = constant(other), _inverse_deviation(inverse, divides=False)
        if gamma is None or spread is None:
            continue
        parts = _Parts(spread[0], list(spread[1]), spread[2], gamma, beta)
        return parts if _kind(parts) else None
    return None


def _kind(parts: _Parts) -> str:
    """The operator that takes these axes and parameters; empty when none does."""
    shape = list(parts.x.shape or ())
    rank, axes = len(shape), parts.axes
    sizes = [array.shape for array in (parts.gamma, parts.beta) if array is not None]
    if any(len(size) > rank for size in sizes):  # the result would have more axes than x
        return ""
    if axes == list(range(axes[0], rank)) and all(_stripped(size) == _stripped(shape[axes[0] :]) for size in sizes):
        return "LayerNormalization" if all(isinstance(size, int) for size in shape[axes[0] :]) else ""
    if rank not in _RANKS_OF_INSTANCE_NORM or axes != list(range(2, rank)) or not isinstance(shape[1], int):
        return ""
    per_channel = (shape[1], *(1 for _ in axes))
    return "InstanceNormalization" if all(size in (per_channel, (1, *per_channel)) for size in sizes) else ""


def _stripped(shape: tuple[int, ...] | list[int | ir.SymbolicDim]) -> list[int | ir.SymbolicDim]:
    """Without the ones in front, which broadcasting adds."""
    left = list(shape)
    while left and left[0] == 1:
        left.pop(0)
    return left


def _replace(graph: ir.Graph, node: ir.Node, parts: _Parts) -> None:
    """Put one node there; γ and β are taken in where they follow and fit."""
    last = node
    for op in ("Mul", "Add"):
        following = only_reader(last.outputs[0])
        if node.op_type == "Add" or following is None or following.op_type != op or following.domain:
            break
        array = next((found for value in following.inputs if (found := constant(value)) is not None), None)
        if array is None:
            break
        grown = replace(parts, gamma=array) if op == "Mul" else replace(parts, beta=array)
        if not _kind(grown):
            break
        parts, last = grown, following
    made = _node(graph, parts, last)
    new = made.outputs[0]
    new.shape, new.type = last.outputs[0].shape, last.outputs[0].type
    ir.convenience.replace_nodes_and_values(graph, last, [last], [made], [last.outputs[0]], [new])


def _node(graph: ir.Graph, parts: _Parts, last: ir.Node) -> ir.Node:
    kind, shape = _kind(parts), list(parts.x.shape or ())
    sizes = [
        size
        for size in (shape[1:2] if kind == "InstanceNormalization" else shape[parts.axes[0] :])
        if isinstance(size, int)
    ]
    dtype = np.dtype(np.float32) if parts.x.dtype is None else parts.x.dtype.numpy()
    gamma = np.ones(sizes, dtype) if parts.gamma is None else parts.gamma.reshape(sizes)
    beta = np.zeros(sizes, dtype) if parts.beta is None else parts.beta.reshape(sizes)
    inputs = [parts.x]
    for name, array in (("gamma", gamma), ("beta", beta)):
        value = ir.Value(name=f"{last.outputs[0].name}_{name}", const_value=ir.tensor(array.astype(dtype)))
        value.shape, value.type = ir.Shape(array.shape), parts.x.type
        graph.register_initializer(value)
        inputs.append(value)
    attributes = [ir.AttrFloat32("epsilon", parts.epsilon)]
    if kind == "LayerNormalization":
        attributes.append(ir.AttrInt64("axis", parts.axes[0]))
    return ir.Node("", kind, inputs, attributes, name=last.name)
