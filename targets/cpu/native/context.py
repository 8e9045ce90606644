"""What a lowering sees: the values so far, who reads them, and the plan that it adds to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewise.targets.cpu.native.builder import Builder
from edgewise.targets.cpu.native.plan import Dim
from edgewise.targets.cpu.native.value import Quant, Refusal, Value, constant_value

if TYPE_CHECKING:
    import onnx_ir as ir

Lowering = Callable[["ir.Node", "Context"], None]


@dataclass
class Context:
    """One network on its way into a plan.

    Attributes:
        builder: the plan.
        values: what was computed so far, by ONNX value.
        done: nodes that an earlier one took along.
        macs: multiply-accumulates by layer.
        matches: attention subgraphs by their last node.
        brain: multiply in bfloat16 what is float32.
    """

    builder: Builder
    values: dict[ir.Value, Value] = field(default_factory=dict)
    done: set[ir.Node] = field(default_factory=set)
    macs: dict[str, Dim] = field(default_factory=dict)
    matches: dict[ir.Node, Any] = field(default_factory=dict)
    brain: bool = False

    def known(self, value: ir.Value | None) -> bool:
        """Whether a value is there already: constants, inputs, results so far."""
        return value is not None and (value in self.values or constant_array(value) is not None)

    def get(self, value: ir.Value | None) -> Value:
        """What was computed for a value; constants are made when they are first asked for.

        Raises:
            Refusal: an input is left out that this lowering needs.
        """
        if value is None:
            raise Refusal("an input that is left out")
        if value not in self.values:
            array = constant_array(value)
            if array is None:
                raise Refusal(f"the value {value.name!r}, which nothing computes")
            self.values[value] = constant_value(array)
        return self.values[value]

    def input(self, node: ir.Node, index: int) -> Value:
        """An input that stands for real numbers (or is integer to ONNX as well)."""
        return self.get(node.inputs[index] if index < len(node.inputs) else None)

    def optional(self, node: ir.Node, index: int) -> Value | None:
        """An input that may be left out."""
        if index >= len(node.inputs) or node.inputs[index] is None:
            return None
        return self.get(node.inputs[index])

    def give(self, node: ir.Node, value: Value, index: int = 0) -> None:
        """Bind a node's output."""
        self.values[node.outputs[index]] = value


def constant_array(value: ir.Value) -> np.ndarray | None:
    """The elements of an initializer."""
    if value.is_graph_input() or value.const_value is None:
        return None
    return np.asarray(value.const_value.numpy())


def readers(value: ir.Value) -> list[ir.Node]:
    """The nodes that read a value."""
    return [use.node for use in value.uses()]


def only_reader(value: ir.Value) -> ir.Node | None:
    """The node that reads a value when there is one only, once, and the network does not give the value out."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def is_op(node: ir.Node | None, *names: str) -> bool:
    """Whether a node is one of these operators of ONNX's own domain."""
    return node is not None and node.domain in ("", "ai.onnx") and node.op_type in names


def attribute_int(node: ir.Node, name: str, default: int) -> int:
    """An attribute or its default."""
    return int(node.attributes[name].as_int()) if name in node.attributes else default


def attribute_float(node: ir.Node, name: str, default: float) -> float:
    """An attribute or its default."""
    return float(node.attributes[name].as_float()) if name in node.attributes else default


def attribute_text(node: ir.Node, name: str, default: str) -> str:
    """An attribute or its default."""
    return str(node.attributes[name].as_string()) if name in node.attributes else default


def attribute_ints(node: ir.Node, name: str) -> list[int] | None:
    """An attribute, or None."""
    return [int(one) for one in node.attributes[name].as_ints()] if name in node.attributes else None


def quant_of(node: ir.Node) -> Quant:
    """The grid of a QuantizeLinear or DequantizeLinear of a whole tensor.

    Raises:
        Refusal: one scale per channel, computed parameters, or another dtype than u8 and s8.
    """
    from edgewise.targets.cpu.native.value import dtype_of

    scale = None if node.inputs[1] is None else constant_array(node.inputs[1])
    if scale is None or scale.size != 1:
        raise Refusal("a scale per channel, or one that is computed")
    point = np.uint8(0)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        found = constant_array(node.inputs[2])
        if found is None or found.size != 1:
            raise Refusal("a zero point per channel, or one that is computed")
        point = found.reshape(-1)[0]
    if point.dtype not in (np.uint8, np.int8):
        raise Refusal(f"quantization to {point.dtype}")
    return Quant(float(np.float32(scale.reshape(-1)[0])), int(point), dtype_of(np.asarray(point)))


_MOVES = ("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split")


def rounding_after(value: ir.Value) -> Quant | None:
    """The grid to which every reader rounds a value, also behind operators that only move elements; None when one does not."""
    nodes = readers(value)
    first = all(node.inputs[0] is value or is_op(node, "Concat") for node in nodes)
    if value.is_graph_output() or not nodes or not first:
        return None
    found: Quant | None = None
    for node in nodes:
        if is_op(node, "QuantizeLinear"):
            grids = [quant_of(node)]
        elif is_op(node, *_MOVES, "Concat"):
            behind = [rounding_after(output) for output in node.outputs]
            if any(grid is None for grid in behind):
                return None
            grids = [grid for grid in behind if grid is not None]
        else:
            return None
        if any(grid != (found or grids[0]) for grid in grids):
            return None
        found = grids[0]
    return found
