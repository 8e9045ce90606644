"""A depthwise convolution and the pointwise one that alone reads it, as one operator: what lies between them has no memory."""

from __future__ import annotations

from dataclasses import replace

from edgewise.targets.cpu.native.builder import Builder
from edgewise.targets.cpu.native.form import same_size
from edgewise.targets.cpu.native.plan import Dim, DType, Op, Storage, Tensor, product

_OPERANDS = 4  # of depthwise: x, weights, scale, bias
_RESIDUAL = 4  # its place among a layer's inputs
_RANK = 4
_FEW_OUTPUTS = 32  # of which conv reads its input as it lies: no packing is saved
_MANY_CHANNELS = 128  # whose strips cost more than what is not written and read again


def join_separable(builder: Builder, macs: dict[str, Dim]) -> int:
    """Make ``separable`` of each pair for which that pays; gives how many.

    To be called before results share memory with operands.

    Args:
        builder: the network's operators; changed in place.
        macs: multiply-accumulates by layer; those of a pair are added up.
    """
    writers, readers = _uses(builder.ops)
    joined: dict[int, Op] = {}
    gone: set[int] = set()
    for index, first in enumerate(builder.ops):
        storage = first.outputs[0].storage if first.outputs else None
        if first.op != "depthwise" or storage is None or storage in builder.fixed:
            continue
        if writers[storage] != [index] or len(readers.get(storage, [])) != 1:
            continue
        at = readers[storage][0]
        second = builder.ops[at]
        if _fits(first, second) and _pays(first, second):
            joined[at] = _joined(builder, first, second)
            gone.add(index)
            macs[joined[at].name] = macs.pop(first.name) + macs.pop(second.name)
    builder.ops[:] = [joined.get(index, op) for index, op in enumerate(builder.ops) if index not in gone]
    return len(joined)


def _uses(ops: list[Op]) -> tuple[dict[Storage, list[int]], dict[Storage, list[int]]]:
    """Which operators write to a storage, and which read it, once for each operand."""
    writers: dict[Storage, list[int]] = {}
    readers: dict[Storage, list[int]] = {}
    for index, op in enumerate(ops):
        for uses, tensors in ((writers, op.outputs), (readers, op.inputs)):
            for tensor in tensors:
                if tensor is not None and tensor.storage is not None:
                    uses.setdefault(tensor.storage, []).append(index)
    return writers, readers


def _fits(first: Op, second: Op) -> bool:
    """Whether they are a depthwise convolution of planes, and a pointwise one of all that it gives."""
    given, made, read = first.inputs[0], first.outputs[0], second.inputs[0]
    if given is None or read is None or second.op != "conv" or len(made.dims) != _RANK:
        return False
    alone = given.dims[1] == made.dims[1] and (len(first.inputs) <= _RESIDUAL or first.inputs[_RESIDUAL] is None)
    pointwise = second.attributes.get("group", 1) == 1 and not second.attributes.get("kernel")
    same = read.storage is made.storage and read.layout is made.layout and read.dtype is made.dtype is given.dtype
    whole = same_size(product(read.dims), product(made.dims)) and same_size(read.dims[0], made.dims[0])
    return alone and pointwise and same and whole and same_size(read.dims[1], made.dims[1])


def _pays(first: Op, second: Op) -> bool:
    """As measured with AVX-512 and AVX2 (docs/notes/native-kernels.md): in bytes always, in float32 nearly."""
    channels, outputs = (op.outputs[0].dims[1].constant for op in (first, second))
    bytewise = first.outputs[0].dtype is not DType.F32
    return bytewise or channels is None or outputs is None or outputs > _FEW_OUTPUTS or channels < _MANY_CHANNELS


def _joined(builder: Builder, first: Op, second: Op) -> Op:
    sizes = first.outputs[0].dims[2:]

    def planes(tensor: Tensor) -> Tensor:
        return builder.view(tensor, [*tensor.dims[:2], *sizes], layout=tensor.layout)

    operands: list[Tensor | None] = [*first.inputs[:_OPERANDS], *second.inputs[1:]]
    at = _OPERANDS + _RESIDUAL - 1
    residual = operands[at] if len(operands) > at else None
    if residual is not None:
        operands[at] = planes(residual)
    attributes = {f"first_{key}": value for key, value in first.attributes.items()} | dict(second.attributes)
    name = f"{first.name} + {second.name}"
    return replace(
        second, op="separable", name=name, inputs=operands, outputs=[planes(second.outputs[0])], attributes=attributes
    )
