"""Results in the memory of an input that nobody reads any more."""

from __future__ import annotations

from collections.abc import Sequence

from edgewise.targets.cpu.native.plan import Plan, Storage, Tensor

# Each reads an element before it writes it, and no other later.
_IN_PLACE = {"unary", "binary", "lut"}


def compute_in_place(plan: Plan, tensors: Sequence[Tensor]) -> int:
    """Let elementwise operators write where they read; gives how many do."""
    last = _last_uses(plan)
    fixed = {tensor.storage for tensor in [*plan.inputs, *plan.outputs]}
    by_storage: dict[Storage, list[Tensor]] = {}
    for tensor in [*tensors, *plan.outputs]:
        if tensor.storage is not None:
            by_storage.setdefault(tensor.storage, []).append(tensor)
    count = 0
    for step, op in enumerate(plan.ops):
        if op.op not in _IN_PLACE:
            continue
        made = op.outputs[0]
        given = next(
            (one for one in op.inputs if one is not None and _fits(one, made) and _alone(one, op.inputs)), None
        )
        if given is None or given.storage is None or made.storage is None:
            continue
        if last[given.storage] != step or given.storage in fixed or made.storage in fixed:
            continue
        for tensor in by_storage.pop(made.storage, []):
            last[given.storage] = max(last[given.storage], last.get(made.storage, step))
            tensor.storage = given.storage
            by_storage[given.storage].append(tensor)
        count += 1
    return count


def _last_uses(plan: Plan) -> dict[Storage, int]:
    last: dict[Storage, int] = {}
    for step, op in enumerate(plan.ops):
        for tensor in [*op.inputs, *op.outputs]:
            if tensor is not None and tensor.storage is not None:
                last[tensor.storage] = step
    return last


def _fits(given: Tensor, made: Tensor) -> bool:
    """Whether the result may lie exactly where the operand lies."""
    same = given.dims == made.dims and given.dtype.size_bytes == made.dtype.size_bytes and given.layout == made.layout
    whole = all(
        one.data is None
        and one.storage is not None
        and one.offset_bytes.constant == 0
        and one.storage.size_bytes == one.size_bytes
        for one in (given, made)
    )
    return same and whole and given.storage is not made.storage


def _alone(one: Tensor, operands: Sequence[Tensor | None]) -> bool:
    """Whether no other operand lies in the same memory in another way."""
    others = [other for other in operands if other is not None and other is not one and other.storage is one.storage]
    return all(other.dims == one.dims and other.offset_bytes == one.offset_bytes for other in others)
