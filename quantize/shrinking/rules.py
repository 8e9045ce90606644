"""What each operator binds: which entries of its inputs and outputs can only be removed together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgewise.quantize.layers import attribute, constant_of
from edgewise.quantize.shrinking.entries import Entries, Stay, rank_of, size_of

HEAD, STREAM = "head", "stream"  # marks: an axis of attention heads; channels that layers add to

_UNARY = {
    "Cast", "Clip", "Dropout", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Mish", "Neg",
    "Relu", "Selu", "Sigmoid", "Softplus", "Sqrt", "Tanh",
}  # fmt: skip
_POOLS = {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"}
_PAIRED = {"Add", "Div", "Max", "Min", "Mul", "PRelu", "Pow", "Sub", "Sum", "Where"}
_ADDING = {"Add", "Sub", "Sum"}
_REDUCING = {"ReduceMax", "ReduceMean", "ReduceSum"}
_PER_CHANNEL = {"BatchNormalization", "InstanceNormalization"}

Rule = Callable[[Entries, ir.Node], None]


def apply_rule(entries: Entries, node: ir.Node) -> None:
    """Bind what a node binds, and freeze what it needs as it is."""
    rule = None if node.domain else _RULES.get(node.op_type)
    if rule is None:
        shared(entries, node, [*node.inputs, *node.outputs])
    else:
        rule(entries, node)


def shared(entries: Entries, node: ir.Node, values: list[ir.Value | None], axes: list[int] | None = None) -> None:
    """These axes (all by default) stay: the node mixes their entries, or is not known."""
    for value in values:
        for axis in axes if axes is not None else range(max(rank_of(value), 0)):
            into = f"its channels go into {node.op_type} {node.name!r}, which others share"
            entries.freeze(entries.of(value, axis), Stay(into))


def bind_axes(entries: Entries, one: ir.Value | None, other: ir.Value | None, pairs: list[tuple[int, int]]) -> None:
    """Bind axes of two tensors, (of one, of the other)."""
    for axis, against in pairs:
        if size_of(one, axis) is not None or size_of(other, against) is not None:
            entries.bind(entries.of(one, axis), entries.of(other, against))


def _all_axes(entries: Entries, node: ir.Node) -> None:
    source, made = node.inputs[0], node.outputs[0]
    bind_axes(entries, source, made, [(axis, axis) for axis in range(rank_of(source))])


def _pool(entries: Entries, node: ir.Node) -> None:
    bind_axes(entries, node.inputs[0], node.outputs[0], [(0, 0), (1, 1)])


def _paired(entries: Entries, node: ir.Node) -> None:
    """Operands are aligned at their last axes; an axis of one entry is the same for all."""
    made = node.outputs[0]
    rank = rank_of(made)
    for operand in node.inputs:
        own = rank_of(operand)
        if own < 0 or rank < 0:
            shared(entries, node, list(node.inputs) + list(node.outputs))
            return
        for axis in range(own):
            there = axis + rank - own
            if not (size_of(operand, axis) == 1 and size_of(made, there) != 1):
                bind_axes(entries, operand, made, [(axis, there)])
    computed = [value for value in node.inputs if constant_of(value) is None]
    if node.op_type in _ADDING and len(computed) > 1:
        for axis in range(rank):
            entries.mark(STREAM, entries.of(made, axis))


def _conv(entries: Entries, node: ir.Node) -> None:
    x, w, y = node.inputs[0], node.inputs[1], node.outputs[0]
    groups = attribute(node, "group", 1)
    bind_axes(entries, w, y, [(0, 1)])
    if len(node.inputs) > 2:
        bind_axes(entries, node.inputs[2], y, [(0, 1)])
    if groups == 1:
        bind_axes(entries, w, x, [(1, 1)])
        return
    own, given = entries.of(w, 0), entries.of(x, 1)
    if own is not None and given is not None and size_of(w, 1) == 1 and len(given) == groups:
        entries.bind(np.repeat(given, len(own) // groups), own)
        return
    for ids in (own, given):
        entries.freeze(ids, Stay(f"its channels are bound to groups of {node.name!r}"))


def _conv_transpose(entries: Entries, node: ir.Node) -> None:
    x, w, y = node.inputs[0], node.inputs[1], node.outputs[0]
    if attribute(node, "group", 1) > 1:
        shared(entries, node, [x, y], [1])
        return
    bind_axes(entries, w, y, [(1, 1)])
    bind_axes(entries, w, x, [(0, 1)])
    if len(node.inputs) > 2:
        bind_axes(entries, node.inputs[2], y, [(0, 1)])


def _gemm(entries: Entries, node: ir.Node) -> None:
    a, b, y = node.inputs[0], node.inputs[1], node.outputs[0]
    rows, inner = (1, 0) if attribute(node, "transA", 0) else (0, 1)
    depth, columns = (1, 0) if attribute(node, "transB", 0) else (0, 1)
    bind_axes(entries, a, y, [(rows, 0)])
    bind_axes(entries, a, b, [(inner, depth)])
    bind_axes(entries, b, y, [(columns, 1)])
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    for axis in range(rank_of(bias)):
        there = axis + 2 - rank_of(bias)
        if size_of(bias, axis) != 1 or size_of(y, there) == 1:
            bind_axes(entries, bias, y, [(axis, there)])


def _matmul(entries: Entries, node: ir.Node) -> None:
    a, b, y = node.inputs[0], node.inputs[1], node.outputs[0]
    if min(rank_of(a), rank_of(b)) < 2 or rank_of(y) < 2:
        shared(entries, node, [a, b, y])
        return
    bind_axes(entries, a, b, [(-1, -2)])
    bind_axes(entries, a, y, [(-2, -2)])
    bind_axes(entries, b, y, [(-1, -1)])
    for operand in (a, b):
        for axis in range(-rank_of(operand), -2):
            if size_of(operand, axis) != 1 or size_of(y, axis) == 1:
                bind_axes(entries, operand, y, [(axis, axis)])
    if constant_of(a) is None and constant_of(b) is None:
        for axis in range(1, rank_of(y) - 2):
            entries.mark(HEAD, entries.of(y, axis))


def _softmax(entries: Entries, node: ir.Node) -> None:
    _all_axes(entries, node)
    shared(entries, node, [node.inputs[0]], [attribute(node, "axis", -1)])


def _layer_norm(entries: Entries, node: ir.Node) -> None:
    rank = rank_of(node.inputs[0])
    first = attribute(node, "axis", -1) % max(rank, 1)
    bind_axes(entries, node.inputs[0], node.outputs[0], [(axis, axis) for axis in range(first)])
    shared(entries, node, [node.inputs[0], node.outputs[0]], list(range(first, rank)))


def _per_channel(entries: Entries, node: ir.Node) -> None:
    _all_axes(entries, node)
    for value in node.inputs[1:]:
        bind_axes(entries, value, node.inputs[0], [(0, 1)])


def _transpose(entries: Entries, node: ir.Node) -> None:
    found = node.attributes.get("perm")
    rank = rank_of(node.inputs[0])
    order = list(reversed(range(rank))) if found is None else list(found.as_ints())
    bind_axes(entries, node.inputs[0], node.outputs[0], [(old, new) for new, old in enumerate(order)])


def _concat(entries: Entries, node: ir.Node) -> None:
    made, along = node.outputs[0], attribute(node, "axis", 0)
    _segments(entries, node, list(node.inputs), made, along)


def _split(entries: Entries, node: ir.Node) -> None:
    _segments(entries, node, list(node.outputs), node.inputs[0], attribute(node, "axis", 0))


def _segments(
    entries: Entries, node: ir.Node, parts: list[ir.Value | None], whole: ir.Value | None, along: int
) -> None:
    rank = rank_of(whole)
    sizes = [size_of(part, along) for part in parts]
    ids = entries.of(whole, along) if rank > 0 else None
    start = 0
    for part, size in zip(parts, sizes, strict=True):
        if ids is None or size is None:
            shared(entries, node, [part, whole], [along])
        else:
            entries.bind(entries.of(part, along), ids[start : start + size])
            start += size
        bind_axes(entries, part, whole, [(axis, axis) for axis in range(rank) if axis != along % rank])


def _reduce(entries: Entries, node: ir.Node) -> None:
    source, made = node.inputs[0], node.outputs[0]
    rank = rank_of(source)
    axes = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if axes is None:
        shared(entries, node, [source, made])
        return
    gone = {int(axis) % rank for axis in axes.reshape(-1)}
    shared(entries, node, [source], sorted(gone))
    kept = [axis for axis in range(rank) if axis not in gone]
    there = kept if attribute(node, "keepdims", 1) else range(len(kept))
    bind_axes(entries, source, made, list(zip(kept, there, strict=True)))


def _squeeze(entries: Entries, node: ir.Node) -> None:
    """Squeeze and Unsqueeze: axes of one entry come and go."""
    source, made = node.inputs[0], node.outputs[0]
    axes = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    longer, shorter = (made, source) if node.op_type == "Unsqueeze" else (source, made)
    if axes is None or rank_of(longer) < 0:
        shared(entries, node, [source, made])
        return
    gone = {int(axis) % rank_of(longer) for axis in axes.reshape(-1)}
    kept = [axis for axis in range(rank_of(longer)) if axis not in gone]
    bind_axes(entries, longer, shorter, list(zip(kept, range(len(kept)), strict=True)))


def _slice(entries: Entries, node: ir.Node) -> None:
    axes = constant_of(node.inputs[3]) if len(node.inputs) > 3 else None
    rank = rank_of(node.inputs[0])
    cut = set(range(rank)) if axes is None else {int(axis) % rank for axis in axes.reshape(-1)}
    shared(entries, node, [node.inputs[0], node.outputs[0]], sorted(cut))
    bind_axes(entries, node.inputs[0], node.outputs[0], [(axis, axis) for axis in range(rank) if axis not in cut])


def _gather(entries: Entries, node: ir.Node) -> None:
    source, made, picked = node.inputs[0], node.outputs[0], rank_of(node.inputs[1])
    rank, along = rank_of(source), attribute(node, "axis", 0)
    if picked < 0 or rank < 0:
        shared(entries, node, [source, made])
        return
    along %= rank
    shared(entries, node, [source], [along])
    moved = [(axis, axis if axis < along else axis + picked - 1) for axis in range(rank) if axis != along]
    bind_axes(entries, source, made, moved)


def _pad(entries: Entries, node: ir.Node) -> None:
    """New entries are bound to what they meet further on, and to nothing here."""
    source, made, pads = node.inputs[0], node.outputs[0], constant_of(node.inputs[1])
    rank = rank_of(source)
    mode = node.attributes.get("mode")
    plain = (mode is None or mode.as_string() == "constant") and len(node.inputs) < 4
    if pads is None or not plain:
        shared(entries, node, [source, made])
        return
    for axis in range(rank):
        before, size, ids = int(pads[axis]), size_of(source, axis), entries.of(made, axis)
        if size is None or ids is None or before < 0 or int(pads[axis + rank]) < 0:
            shared(entries, node, [source, made], [axis])
        else:
            entries.bind(entries.of(source, axis), ids[before : before + size])


_RULES: dict[str, Rule] = {
    **dict.fromkeys(_UNARY, _all_axes),
    **dict.fromkeys(_POOLS, _pool),
    **dict.fromkeys(_PAIRED, _paired),
    **dict.fromkeys(_REDUCING, _reduce),
    **dict.fromkeys(_PER_CHANNEL, _per_channel),
    **dict.fromkeys(("Squeeze", "Unsqueeze"), _squeeze),
    "Concat": _concat,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gather": _gather,
    "Gemm": _gemm,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "Pad": _pad,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Transpose": _transpose,
}
