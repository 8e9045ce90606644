"""Fewer vectors beside compressed weights: each costs a header and a filled-up end in the file, as much as 50 channels.

A bias that nothing but a pointwise convolution reads becomes part of that one's bias; scales of channels that a depthwise
convolution alone reads become part of its scales (r: a Relu, or nothing; the scale that is left is one number):

    x ─ Conv (w₁, b₁) ─ Conv 1×1 (w₂, b₂)          →    x ─ Conv (w₁) ─ Conv 1×1 (w₂, b₂ + w₂·b₁)
    x ─ Conv (s₁·q₁, b₁) ─ r ─ Conv dw (s₂·q₂)     →    x ─ Conv (c·q₁, b₁·c/s₁) ─ r ─ Conv dw (s₂·s₁/c·q₂)

The integers stay what they are, and so does what the network computes. Dense layers are left as they are: a mean that the bias takes away
from a tensor costs float16 digits once it is back, which is worth a bias only where bytes were asked for.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgewise.targets.coreml.compact import is_compact
from edgewise.targets.coreml.node import constant

_HOMOGENEOUS = frozenset({"Relu", "LeakyRelu"})
_LEAST_VECTOR = 10  # coremltools writes shorter ones into the program
_WIDEST = 64.0  # greatest scale over least: tensors grow or shrink 8 times at most, of float16's 10^9
_HALF_BYTES = 2


def lighten(model: ir.Model, ios: int) -> None:
    """In place."""
    for node in model.graph:
        if node.op_type == "Conv" and not node.domain:
            _hand_on_scales(model.graph, node)
    for node in model.graph:
        if node.op_type == "Conv" and not node.domain:
            _hand_on_bias(model.graph, node, ios)


def _hand_on_bias(graph: ir.Graph, node: ir.Node, ios: int) -> None:
    reader = _only_reader(node.outputs[0])
    own, weight = _bias(node), _weight(node)
    if reader is None or own is None or weight is None or not _is_pointwise(reader) or own.size < _LEAST_VECTOR:
        return
    taken, factors = _bias(reader), _weight(reader)
    if taken is None or factors is None or not (_stored(node) or is_compact(weight, 0, ios, _HALF_BYTES)):
        return
    groups = reader.attributes.get_int("group", 1)
    rows = factors.astype(np.float64).reshape(groups, -1, factors.shape[1])
    moved = np.einsum("goi,gi->go", rows, own.astype(np.float64).reshape(groups, -1)).ravel()
    _set_input(graph, reader, 2, (taken + moved).astype(taken.dtype))
    node.resize_inputs(2)


def _hand_on_scales(graph: ir.Graph, node: ir.Node) -> None:
    stored, readers = _stored(node), _depthwise_readers(node.outputs[0])
    bias = _bias(node)
    if stored is None or not readers or (bias is None and _has_bias(node)):
        return
    scales = _scales(stored)
    if scales is None or scales.min() <= 0 or scales.max() > _WIDEST * scales.min():
        return
    center = np.sqrt(scales.min() * scales.max())
    factors = scales / center
    _rescale(graph, stored, np.asarray(center))
    if bias is not None:
        _set_input(graph, node, 2, (bias / factors).astype(bias.dtype))
    for reader in readers:
        own = _scales(reader)
        if own is not None:  # _depthwise_readers has seen to it
            _rescale(graph, reader, own * np.repeat(factors, own.size // factors.size))


def _depthwise_readers(value: ir.Value) -> list[ir.Node]:
    """The ``DequantizeLinear`` of each depthwise convolution that reads a tensor, if nothing else does; past one activation."""
    reader = _only_reader(value)
    if reader is not None and reader.op_type in _HOMOGENEOUS:
        value = reader.outputs[0]
    if value.is_graph_output() or not value.uses():
        return []
    found = []
    for use in value.uses():
        stored, channels = _stored(use.node), _channels(value)
        if use.node.op_type != "Conv" or use.idx != 0 or stored is None or _scales(stored) is None:
            return []
        if channels is None or use.node.attributes.get_int("group", 1) != channels:
            return []
        found.append(stored)
    return found


def _channels(value: ir.Value) -> int | None:
    dim = value.shape[1] if value.shape is not None and len(value.shape) > 1 else None
    return dim if isinstance(dim, int) else None


def _only_reader(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and uses[0].idx == 0 and not value.is_graph_output() else None


def _is_pointwise(node: ir.Node) -> bool:
    """A convolution of 1×1 without padding."""
    weight = node.inputs[1] if node.op_type == "Conv" and not node.domain else None
    if weight is None or weight.shape is None or any(dim != 1 for dim in list(weight.shape)[2:]):
        return False
    pads = node.attributes.get_ints("pads", [])
    return not any(pads) and node.attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")


def _has_bias(node: ir.Node) -> bool:
    return len(node.inputs) > 2 and node.inputs[2] is not None


def _bias(node: ir.Node) -> np.ndarray | None:
    return constant(node.inputs[2]) if _has_bias(node) else None


def _stored(node: ir.Node) -> ir.Node | None:
    """What makes a layer's weights of integers, for this layer alone."""
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    made = None if weight is None else weight.producer()
    if weight is None or made is None or made.op_type != "DequantizeLinear" or len(weight.uses()) != 1:
        return None
    return made if all(constant(value) is not None for value in made.inputs if value is not None) else None


def _scales(stored: ir.Node) -> np.ndarray | None:
    """The scale of each output channel (float64 [channels]), when there are as many, and no zero points."""
    data, scale = (constant(value) for value in stored.inputs[:2])
    if data is None or scale is None or scale.ndim != 1 or not scale.size == data.shape[0] >= _LEAST_VECTOR:
        return None
    zero = constant(stored.inputs[2]) if len(stored.inputs) > 2 else None
    axis = stored.attributes.get_int("axis", 1)
    return scale.astype(np.float64) if axis % data.ndim == 0 and (zero is None or not zero.any()) else None


def _weight(node: ir.Node) -> np.ndarray | None:
    """The numbers of a layer's weights, [channels, inputs, …], however they are stored."""
    stored = _stored(node)
    if stored is None:
        return constant(node.inputs[1])
    data, scale = (constant(value) for value in stored.inputs[:2])
    scales = _scales(stored)
    if data is None or scale is None or (scales is None and scale.size != 1):
        return None
    zero = constant(stored.inputs[2]) if len(stored.inputs) > 2 else None
    if zero is not None and zero.any():
        return None
    steps = scale.ravel() if scales is None else scales
    return np.asarray(data.astype(np.float64) * steps.reshape(-1, *[1] * (data.ndim - 1)), np.float32)


def _rescale(graph: ir.Graph, stored: ir.Node, scales: np.ndarray) -> None:
    """Put scales in the place of others; zero points that are zero go, for they would be as many as the scales were."""
    value = stored.inputs[1]
    kind = np.float32 if value is None or value.dtype is None else value.dtype.numpy()
    _set_input(graph, stored, 1, scales.astype(kind))
    if len(stored.inputs) > 2 and not scales.ndim:
        stored.resize_inputs(2)


def _set_input(graph: ir.Graph, node: ir.Node, index: int, array: np.ndarray) -> None:
    """Give a node a constant of its own: others may read the old one."""
    name = f"{node.name or node.outputs[0].name}_lighter_{index}"
    while name in graph.initializers:
        name += "_"
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name), shape=ir.Shape(array.shape))
    value.dtype = ir.DataType.from_numpy(array.dtype)
    graph.register_initializer(value)
    node.replace_input_with(index, value)
