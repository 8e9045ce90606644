"""ONNX to a plan: every node lowered by the table, inputs and outputs bound, memory shared where it can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgewise.targets.cpu.native.attention import Attention, find
from edgewise.targets.cpu.native.builder import Builder
from edgewise.targets.cpu.native.constants import evaluated
from edgewise.targets.cpu.native.context import Context
from edgewise.targets.cpu.native.form import Form
from edgewise.targets.cpu.native.ops.attention import attention
from edgewise.targets.cpu.native.ops.elementwise import known
from edgewise.targets.cpu.native.plan import Dim, Isa, Layout, Plan, Tensor, dim
from edgewise.targets.cpu.native.prepare import prepare
from edgewise.targets.cpu.native.separable import join_separable
from edgewise.targets.cpu.native.share import compute_in_place
from edgewise.targets.cpu.native.table import lowering
from edgewise.targets.cpu.native.trace import inner_tensors
from edgewise.targets.cpu.native.value import Refusal, Value, dtype_named
from edgewise.targets.nodes import dtype_name, op_name

if TYPE_CHECKING:
    import onnx_ir as ir


_OTHER = "libedgewise takes float32, float16, bfloat16, float64, int64, int32, int16, uint16, int8, uint8 and bool: cast it before the network, and give that to it"


class NotTakenError(Exception):
    """The native engine does not take a network.

    Attributes:
        node: the first node that it does not take; empty when it is no node's fault.
        op: its operator.
        reason: why.
    """

    def __init__(self, node: str, op: str, reason: str) -> None:
        super().__init__(f"{op} {node!r}: {reason}" if node else reason)
        self.node, self.op, self.reason = node, op, reason


@dataclass
class Compiled:
    """A plan, and what is known of its layers.

    Attributes:
        plan: to be encoded.
        macs: multiply-accumulates by layer, which may depend on the inputs' shapes.
        tensors: where the network's inner tensors lie, by name (``trace.py``).
    """

    plan: Plan
    macs: dict[str, Dim] = field(default_factory=dict)
    tensors: dict[str, dict[str, Any]] = field(default_factory=dict)


def compile_model(
    model: ir.Model, isa: Isa, *, brain: bool = False, limits: Mapping[str, int] | None = None
) -> Compiled:
    """Lower a whole network.

    Args:
        model: the network. It is not changed.
        isa: what a processor must have at least.
        brain: layers of float32 round their inputs and weights to bfloat16, multiply these, and add up in float32.
        limits: the most that a dim of the inputs may be, by name; the engine refuses larger ones.

    Raises:
        NotTakenError: with the first node that the native engine does not take.
    """
    try:
        ready = prepare(model)
    except Refusal as error:
        node = error.node
        raise NotTakenError(node.name or "" if node else "", op_name(node) if node else "", str(error)) from error
    ctx = Context(Builder(isa), brain=brain)
    ctx.matches = {node: match for node, match in find(ready.graph).items() if _fits(match)}
    inside = {node for match in ctx.matches.values() for node in match.nodes}
    inputs = [_input(ctx, value) for value in ready.graph.inputs]
    for node in ready.graph:
        if node not in ctx.done and node not in inside:
            _lower(ctx, node)
    outputs = [_output(ctx, value) for value in ready.graph.outputs]
    plan = Plan(isa, inputs, outputs, ctx.builder.ops, dict(limits or {}))
    join_separable(ctx.builder, ctx.macs)
    tensors = inner_tensors(ctx)
    compute_in_place(plan, ctx.builder.tensors)
    return Compiled(plan, ctx.macs, tensors)


def _fits(match: Attention) -> bool:
    """Whether the operator takes it: of so many axes, and as many heads everywhere. Others stay products and a Softmax."""
    shapes = [value.shape for value in (match.query, match.key, match.value)]
    known = [shape for shape in shapes if shape is not None]
    return all(len(shape) in (3, 4) and shape[:-2] == known[0][:-2] for shape in known)


def _lower(ctx: Context, node: ir.Node) -> None:
    ctx.builder.name = node.name or node.op_type
    if evaluated(node, ctx):
        return
    function = lowering(node)
    if function is None:
        raise NotTakenError(node.name or "", op_name(node), "libedgewise has no operator for it")
    try:
        if node in ctx.matches:
            attention(node, ctx, ctx.matches[node])
        else:
            function(node, ctx)
    except Refusal as error:
        raise NotTakenError(node.name or "", op_name(node), str(error)) from error


def _input(ctx: Context, value: ir.Value) -> Tensor:
    name = value.name or ""
    if value.shape is None:
        raise NotTakenError("", "", f"input {name!r} has no shape")
    dims: list[Dim] = []
    for index, size in enumerate(value.shape):
        dims.append(dim(size if isinstance(size, int) else str(size.value or f"{name}.{index}")))
    try:
        dtype = dtype_named(dtype_name(value))
    except Refusal as error:
        raise NotTakenError("", "", f"input {name!r} has {error}; {_OTHER}") from error
    ctx.builder.name = name
    tensor = ctx.builder.new(dtype, dims)
    if tensor.storage is not None:
        ctx.builder.fixed.add(tensor.storage)
    ctx.values[value] = Value(Form.plain(dims), tensor)
    return tensor


def _output(ctx: Context, value: ir.Value) -> Tensor:
    """The value as ONNX has it, in memory of its own."""
    builder = ctx.builder
    builder.name = name = value.name or ""
    found = ctx.get(value)
    try:
        found = builder.plain(builder.bytes_of(found) if found.raw else known(builder.real(found), ctx))
    except Refusal as error:
        raise NotTakenError("", "", f"output {name!r}: {error}") from error
    tensor = builder.view(found.tensor, found.dims) if found.tensor is not None else None
    if tensor is None:
        raise NotTakenError("", "", f"output {name!r} is a constant")
    if not _whole(tensor) or tensor.storage in builder.fixed:
        copied = builder.new(tensor.dtype, found.dims)
        builder.emit("copy", [tensor], [copied])
        tensor = copied
    port = Tensor(name, tensor.dtype, found.dims, Layout.PLAIN, storage=tensor.storage)
    builder.tensors.append(port)
    if tensor.storage is not None:
        builder.fixed.add(tensor.storage)
    return port


def _whole(tensor: Tensor) -> bool:
    """Whether it is all that lies in its storage."""
    return (
        tensor.data is None
        and tensor.storage is not None
        and tensor.offset_bytes.constant == 0
        and tensor.storage.size_bytes == tensor.size_bytes
    )
