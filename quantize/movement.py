"""Operators that hand values on as they are: what goes in on one scale comes out on the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgewise.quantize.layers import constant_of

if TYPE_CHECKING:
    import onnx_ir as ir


def _always(node: ir.Node) -> bool:
    return True


def _one_output(node: ir.Node) -> bool:
    return len(node.outputs) == 1


def _nearest(node: ir.Node) -> bool:
    mode = node.attributes.get("mode")
    return mode is None or mode.as_string() == "nearest"


def _pads_zero(node: ir.Node) -> bool:
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return True
    fill = constant_of(node.inputs[2])
    return fill is not None and float(fill.item()) == 0.0


def _pools_values(node: ir.Node) -> bool:
    """A pool that hands on no indices, and reads no border of another value (−∞ has no place on a grid)."""
    maker = node.inputs[0].producer() if node.inputs[0] is not None else None
    return _one_output(node) and (maker is None or maker.op_type != "Pad" or _pads_zero(maker))


def _no_constants(node: ir.Node) -> bool:
    return all(value is not None and constant_of(value) is None for value in node.inputs)


# Each with the condition under which it holds.
_MOVES: dict[str, Callable[[ir.Node], bool]] = {
    "Concat": _no_constants,
    "DepthToSpace": _always,
    "Dropout": _one_output,
    "Expand": _always,
    "Flatten": _always,
    "Gather": _always,
    "Identity": _always,
    "MaxPool": _pools_values,
    "Pad": _pads_zero,
    "Reshape": _always,
    "Resize": _nearest,
    "Slice": _always,
    "SpaceToDepth": _always,
    "Split": _always,
    "Squeeze": _always,
    "Tile": _always,
    "Transpose": _always,
    "Unsqueeze": _always,
}
# These compute: they are handed integers only when the target says that it has integer kernels for them.
_KERNELS = ("Concat", "MaxPool")
# Parts may have ranges of their own (queries, keys and values of one projection): round after taking them apart.
_SELECTS = ("Gather", "Slice", "Split")


def moves(node: ir.Node, integer_ops: tuple[str, ...]) -> bool:
    """Whether the node's outputs are on its inputs' scale."""
    condition = _MOVES.get(node.op_type) if node.domain == "" else None
    return condition is not None and condition(node) and (node.op_type not in _KERNELS or node.op_type in integer_ops)


def selects(node: ir.Node) -> bool:
    """Whether the node takes its input apart."""
    return node.op_type in _SELECTS


def moved_inputs(node: ir.Node) -> list[int]:
    """Indices of the inputs whose values are handed on: all of Concat's, the first of the others."""
    return list(range(len(node.inputs))) if node.op_type == "Concat" else [0]
