"""Where an engine leaves the network's inner tensors, so that they can be compared with the source's, layer by layer."""

from __future__ import annotations

from typing import Any

from edgewise.targets.cpu.native.context import Context, is_op
from edgewise.targets.cpu.native.plan import Dim, Layout, Storage, Tensor
from edgewise.targets.cpu.native.value import Value, numpy_name

# What only says how a tensor is looked at, or rounds what is there already.
_SILENT = (
    "QuantizeLinear", "DequantizeLinear", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Identity",
)  # fmt: skip
Written = dict[Storage, list[tuple[int, int, Tensor]]]


def inner_tensors(ctx: Context) -> dict[str, dict[str, Any]]:
    """By name of the network: which output of which operator holds it, and how it lies there.

    A tensor that no single operator writes (a Concat whose parts are computed in place) is left out, for its parts are there.
    To be called before results share memory with operands. The keys are those that ``runtime/native_tensors.py`` reads.
    """
    written: Written = {}
    for index, op in enumerate(ctx.builder.ops):
        for output, tensor in enumerate(op.outputs):
            if tensor.storage is not None:
                written.setdefault(tensor.storage, []).append((index, output, tensor))
    found = {}
    for value, made in ctx.values.items():
        maker = value.producer()
        if not value.name or maker is None or made.raw or made.tensor is None:
            continue
        if any(
            factor.is_counted for factor in made.form.factors
        ):  # as many as a run finds, which the source may see otherwise
            continue
        if is_op(maker, *_SILENT) and maker.inputs[0] in ctx.values:  # else it was computed with the layer before
            continue
        place = _place(made.tensor, written)
        if place is not None:
            found[value.name] = place | _form(made)
    return found


def _place(tensor: Tensor, written: Written) -> dict[str, int] | None:
    """The last operator that writes all of it, and from which byte of its output on it lies."""
    for index, output, one in reversed(written.get(tensor.storage, []) if tensor.storage is not None else []):
        if one.offset_bytes == tensor.offset_bytes and one.size_bytes == tensor.size_bytes:
            return {"op": index, "output": output, "offset_bytes": 0}
        ends = [part.constant for part in (one.offset_bytes, one.size_bytes, tensor.offset_bytes, tensor.size_bytes)]
        known = [end for end in ends if end is not None]
        if len(known) < len(ends) or one.layout is not Layout.PLAIN:
            continue
        begin, size, first, count = known
        if begin <= first and first + count <= begin + size:
            return {"op": index, "output": output, "offset_bytes": first - begin}
    return None


def _form(made: Value) -> dict[str, Any]:
    """Factors of each axis, their order in memory, which of them lies in fours (``lane``), and the grid of bytes."""
    told: dict[str, Any] = {
        "dtype": numpy_name(made.dtype),
        "axes": [[_number(factor) for factor in axis] for axis in made.form.axes],
        "order": list(made.form.order),
    }
    if made.lane is not None:
        told["lane"] = made.lane
    if made.in_bytes and made.quant is not None:
        told |= {"scale": made.quant.scale, "zero_point": made.quant.zero_point}
    return told


def _number(one: Dim) -> int | str | list[Any]:
    """A dim as JSON: a number, the name of a dim of the inputs, or an operation on two of these."""
    if one.left is not None and one.right is not None:
        return [one.kind, _number(one.left), _number(one.right)]
    return one.value
