"""Where samples of a batch lie in what an operator makes, when they lie along one axis of what it reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import onnx_ir as ir


@dataclass(frozen=True)
class Batch:
    """The samples lie along ``axis``, the outermost of its entries; each has ``times`` of them (1: an axis of their own)."""

    axis: int
    times: int


class HeldError(Exception):
    """The operator does not keep samples apart, or its batch cannot change; says how."""


Places = Sequence[Batch | None]
Rule = Callable[[ir.Node, Places], Batch | None]


def same_place(node: ir.Node, places: Places) -> Batch:
    """Operators that go entry by entry, with broadcasting."""
    ranks = [len(_shape(value)) for value in node.inputs if value is not None]
    rank = max(ranks)
    found = {
        Batch(rank - len(_shape(value)) + place.axis, place.times)
        for value, place in zip(node.inputs, places, strict=True)
        if value is not None and place is not None
    }
    if len(found) != 1:
        raise HeldError("samples along different axes of its inputs")
    batch = found.pop()
    for value, place in zip(node.inputs, places, strict=True):
        if value is not None and place is None and _size_at(value, batch.axis - rank) != 1:
            raise HeldError(f"an input of one size along the batch, {value.name!r}")
    return batch


def stays(node: ir.Node, places: Places) -> Batch:
    """Operators whose first input alone is data, and keeps its axes."""
    return _only_first(node, places)


def leading(node: ir.Node, places: Places) -> Batch:
    """Operators over images: samples are the first dim."""
    batch = _only_first(node, places)
    if batch.axis != 0:
        raise HeldError(f"samples along axis {batch.axis} of an operator whose first dim they should be")
    return batch


def leading_of_all(node: ir.Node, places: Places) -> Batch:
    """As ``leading``, where every input has samples of its own."""
    if any(place is None or place.axis != 0 or place.times != 1 for place in places):
        raise HeldError("an input that is the same for all samples, or has them elsewhere")
    return Batch(0, 1)


def along_an_axis(default: int) -> Rule:
    """Operators that work along one axis, which must not be the samples'."""
    return lambda node, places: _beside_the_axis(node, places, default)[0]


def _beside_the_axis(node: ir.Node, places: Places, default: int) -> tuple[Batch, int]:
    """Where the samples lie, and the node's axis, which is another."""
    batch, axis = _agreed(node, places), node.attributes.get_int("axis", default) % _rank(node)
    if axis == batch.axis:
        raise HeldError(f"axis {axis}, along which the samples lie")
    return batch, axis


def normalized(node: ir.Node, places: Places) -> Batch:
    """Normalisation over all axes from one on."""
    batch = _only_first(node, places)
    if node.attributes.get_int("axis", -1) % _rank(node) <= batch.axis:
        raise HeldError("a normalisation over the samples")
    return batch


def reduced(node: ir.Node, places: Places) -> Batch:
    """Sums, means, least and greatest along axes."""
    batch = _only_first(node, places)
    axes = _axes(node)
    if not axes and node.attributes.get_int("noop_with_empty_axes", 0) == 1:
        return batch
    if not axes or batch.axis in axes:
        raise HeldError("a reduction over the samples")
    kept = node.attributes.get_int("keepdims", 1)
    return batch if kept else Batch(batch.axis - sum(axis < batch.axis for axis in axes), batch.times)


def arg_reduced(node: ir.Node, places: Places) -> Batch:
    """The place of the greatest or least along one axis."""
    batch, axis = _beside_the_axis(node, places, 0)
    gone = not node.attributes.get_int("keepdims", 1) and axis < batch.axis
    return Batch(batch.axis - gone, batch.times)


def transposed(node: ir.Node, places: Places) -> Batch:
    """Axes in another order."""
    batch = _only_first(node, places)
    rank = _rank(node)
    perm = list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else list(range(rank))[::-1]
    return Batch(perm.index(batch.axis), batch.times)


def reshaped(node: ir.Node, places: Places) -> Batch:
    """Where as many entries come before as before, the samples are; of two such axes the one that is 1."""
    batch = _only_first(node, places)
    source, made = _shape(node.inputs[0]), _shape(node.outputs[0])
    before = _known(source[: batch.axis])
    fits = [axis for axis in range(len(made)) if _known(made[:axis]) == before]
    if not fits:
        raise HeldError(f"shape {_text(source)} to {_text(made)}, which puts the samples inside another axis")
    alone = [axis for axis in fits if made[axis] == 1]
    if alone:
        return Batch(batch.axis if batch.axis in alone else alone[0], 1)
    return Batch(fits[0], _known(made[fits[0] : fits[0] + 1]))


def flattened(node: ir.Node, places: Places) -> Batch:
    """Two axes out of all."""
    batch = leading(node, places)
    if node.attributes.get_int("axis", 1) % (_rank(node) + 1) == 0:
        raise HeldError("a Flatten of the samples into one row")
    return Batch(0, _known(_shape(node.outputs[0])[:1]) or batch.times)


def expanded(node: ir.Node, places: Places) -> Batch:
    """Axes of 1 repeated, and new ones in front."""
    batch = _only_first(node, places)
    made = _shape(node.outputs[0])
    axis = len(made) - _rank(node) + batch.axis
    if made[axis] != _shape(node.inputs[0])[batch.axis]:
        raise HeldError("an Expand of the one sample")
    return Batch(axis, batch.times)


def summed_up(node: ir.Node, places: Places) -> Batch:
    """CumSum along an axis that is an input."""
    batch = _only_first(node, places)
    axes = _listed(node, 1, "")
    if not axes or axes[0] % _rank(node) == batch.axis:
        raise HeldError("a sum along the samples, or along an axis that is not known")
    return batch


def halved(node: ir.Node, places: Places) -> Batch:
    """Trilu: matrices are the last two axes."""
    batch = _only_first(node, places)
    if batch.axis >= _rank(node) - 2:
        raise HeldError("a triangle of samples")
    return batch


def squeezed(node: ir.Node, places: Places) -> Batch:
    """Axes of 1 taken away."""
    batch = _only_first(node, places)
    axes = _axes(node)
    if not axes or batch.axis in axes:
        raise HeldError("a Squeeze that takes the batch away")
    return Batch(batch.axis - sum(axis < batch.axis for axis in axes), batch.times)


def unsqueezed(node: ir.Node, places: Places) -> Batch:
    """Axes of 1 put in."""
    batch = _only_first(node, places)
    put_in = {axis % len(_shape(node.outputs[0])) for axis in _listed(node, 1, "axes")}
    rest = [axis for axis in range(len(_shape(node.outputs[0]))) if axis not in put_in]
    return Batch(rest[batch.axis], batch.times)


def sliced(node: ir.Node, places: Places) -> Batch:
    """Parts of some axes."""
    batch = _only_first(node, places)
    starts = _listed(node, 1, "starts")
    axes = _listed(node, 3, "axes") or list(range(len(starts)))
    if not starts or batch.axis in {axis % _rank(node) for axis in axes}:
        raise HeldError("a Slice of the samples, or of axes that are not known")
    return batch


def padded(node: ir.Node, places: Places) -> Batch:
    """A border around some axes."""
    batch = _only_first(node, places)
    pads, axes = _listed(node, 1, "pads"), _listed(node, 3, "") or list(range(_rank(node)))
    around = {
        axis % _rank(node) for index, axis in enumerate(axes) if pads and (pads[index] or pads[index + len(axes)])
    }
    if not pads or batch.axis in around:
        raise HeldError("a Pad of the samples, or one that is computed")
    return batch


def gathered(node: ir.Node, places: Places) -> Batch:
    """Entries of a table by number, or some of an axis."""
    data, indices = (places[index] if index < len(places) else None for index in (0, 1))
    axis = node.attributes.get_int("axis", 0) % _rank(node)
    if data is not None and indices is not None:
        raise HeldError("samples in the table and in the numbers")
    if indices is not None:
        return Batch(axis + indices.axis, indices.times)
    if data is None or data.axis == axis:
        raise HeldError("a Gather of some samples")
    return Batch(data.axis + (len(_shape(node.inputs[1])) - 1 if data.axis > axis else 0), data.times)


def multiplied(node: ir.Node, places: Places) -> Batch:
    """A stack of matrix products, or rows or columns of one."""
    ranks = [len(_shape(value)) for value in node.inputs[:2]]
    rank = max(ranks)
    for index, (mine, other) in enumerate(((places[0], places[1]), (places[1], places[0]))):
        if mine is None:
            continue
        contracted = ranks[0] - 1 if index == 0 else max(ranks[1] - 2, 0)
        if mine.axis == contracted or min(ranks) < 2:
            raise HeldError("a product that sums over the samples")
        if mine.axis >= ranks[index] - 2:
            if other is not None:
                raise HeldError("a product of samples with each other")
            return Batch(rank - ranks[index] + mine.axis, mine.times)
    return same_place(node, places)


def affine(node: ir.Node, places: Places) -> Batch:
    """Gemm: the samples are rows of its first factor."""
    row = 1 if node.attributes.get_int("transA", 0) else 0
    batch = places[0]
    if batch is None or batch.axis != row or any(place is not None for place in places[1:]):
        raise HeldError("a product that sums over the samples, or has them in its second factor")
    added = _shape(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else []
    if len(added) == 2 and added[0] != 1:
        raise HeldError("a bias of one size along the batch")
    return Batch(0, batch.times)


def sizes_only(node: ir.Node, places: Places) -> None:
    """What reads shapes alone: its numbers follow by themselves."""


def _only_first(node: ir.Node, places: Places) -> Batch:
    if places[0] is None or any(place is not None for place in places[1:]):
        raise HeldError("samples in an input that should hold parameters")
    return places[0]


def _agreed(node: ir.Node, places: Places) -> Batch:
    found = {place for place in places if place is not None}
    if len(found) != 1:
        raise HeldError("samples along different axes of its inputs")
    return found.pop()


def _axes(node: ir.Node) -> list[int]:
    return [axis % _rank(node) for axis in _listed(node, 1, "axes")]


def _listed(node: ir.Node, index: int, attribute: str) -> list[int]:
    """Integers of a constant input, or of the attribute that held them in older opsets."""
    if attribute and attribute in node.attributes:
        return list(node.attributes[attribute].as_ints())
    value = node.inputs[index] if index < len(node.inputs) else None
    return (
        [] if value is None or value.const_value is None else [int(each) for each in value.const_value.numpy().ravel()]
    )


def _rank(node: ir.Node) -> int:
    return len(_shape(node.inputs[0]))


def _shape(value: ir.Value | None) -> list[int | ir.SymbolicDim]:
    if value is None or value.shape is None:
        raise HeldError("a tensor whose shape is not known")
    return list(value.shape)


def _size_at(value: ir.Value, from_behind: int) -> object:
    shape = _shape(value)
    return shape[from_behind] if -from_behind <= len(shape) else 1


def _known(dims: Sequence[int | ir.SymbolicDim]) -> int:
    """The product; what is not known counts as a size that no other has."""
    return prod(dim if isinstance(dim, int) else -1 for dim in dims)


def _text(dims: Sequence[int | ir.SymbolicDim]) -> str:
    return f"[{', '.join(str(getattr(dim, 'value', dim)) for dim in dims)}]"


_ENTRYWISE = (
    "Abs", "Acos", "Add", "And", "Asin", "Atan", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Cos", "Div", "Dropout", "Elu", "Equal", "Erf",
    "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsNaN", "LeakyRelu", "Less", "LessOrEqual",
    "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid",
    "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tan", "Tanh", "ThresholdedRelu", "Where", "Xor"
)  # fmt: skip
_IMAGES = (
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "DepthToSpace", "GlobalAveragePool", "GlobalMaxPool", "GroupNormalization",
    "InstanceNormalization", "LRN", "LpPool", "MaxPool", "Resize", "SpaceToDepth", "Upsample"
)  # fmt: skip
_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"
)  # fmt: skip
_ALONG_AN_AXIS = (
    "Concat", "Hardmax", "LogSoftmax", "Softmax", "TopK"
)  # fmt: skip
RULES: dict[str, Rule] = {
    **dict.fromkeys(_ENTRYWISE, same_place),
    **dict.fromkeys(_IMAGES, leading),
    **dict.fromkeys(_REDUCTIONS, reduced),
    **dict.fromkeys(_ALONG_AN_AXIS, along_an_axis(-1)),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), stays),
    "ArgMax": arg_reduced, "ArgMin": arg_reduced, "CumSum": summed_up, "Expand": expanded, "Flatten": flattened, "Gather": gathered,
    "GatherElements": along_an_axis(0), "Gemm": affine, "GridSample": leading_of_all, "LayerNormalization": normalized,
    "LpNormalization": along_an_axis(-1), "MatMul": multiplied, "Pad": padded, "RMSNormalization": normalized, "Reshape": reshaped,
    "Shape": sizes_only, "Size": sizes_only, "Slice": sliced, "Split": along_an_axis(0), "Squeeze": squeezed, "Transpose": transposed,
    "Trilu": halved,     "Unsqueeze": unsqueezed,
}  # fmt: skip
