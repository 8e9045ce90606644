"""What is known of an ONNX node before anything is built: attributes, constants, dtypes, shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

Dims = tuple[int | None, ...]


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array of an initializer (or of a ``Constant``), None for what is computed at run time."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def only_reader(value: ir.Value) -> ir.Node | None:
    """The one node that reads a value which is no output of the graph; None where there are more, or none."""
    readers = value.uses()
    return next(iter(readers)).node if len(readers) == 1 and not value.is_graph_output() else None


def is_weight(value: ir.Value | None) -> bool:
    """A constant, or one that is stored as integers: ``DequantizeLinear`` of constants, perhaps moved around after it."""
    if value is None:
        return False
    if constant(value) is not None:
        return True
    node = value.producer()
    if node is None or node.op_type not in ("DequantizeLinear", "Transpose"):
        return False
    if node.op_type == "DequantizeLinear":
        return all(constant(source) is not None for source in node.inputs if source is not None)
    return is_weight(node.inputs[0])


def dtype_name(value: ir.Value) -> str | None:
    """Numpy's name of a value's dtype (``int4`` and the like as ml_dtypes calls them), ``string``, or None when unknown."""
    if value.dtype is None:
        return None
    return "string" if value.dtype == ir.DataType.STRING else value.dtype.numpy().name


class NodeView:
    """Read access to a node: the same whether it is only judged or also built.

    Attributes:
        node: the node of the prepared graph.
        opset: version of ONNX's default domain in the model.
        ios: minimum deployment target, 15 to 26.
    """

    def __init__(self, node: ir.Node, opset: int, ios: int) -> None:
        self.node, self.opset, self.ios = node, opset, ios

    @property
    def op(self) -> str:
        """Operator, with its domain unless that is ONNX's own."""
        return f"{self.node.domain}::{self.node.op_type}" if self.node.domain else self.node.op_type

    @property
    def label(self) -> str:
        """The node's name, or that of its first output when it has none."""
        return self.node.name or self.node.outputs[0].name or "?"

    def value(self, index: int) -> ir.Value | None:
        """An input, None when it is left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def given(self, index: int) -> bool:
        """Whether an optional input is there."""
        return self.value(index) is not None

    def const(self, index: int) -> np.ndarray | None:
        """A constant input's array."""
        return constant(self.value(index))

    def known(self, index: int) -> np.ndarray:
        """A constant input's array where a check has made sure that it is one."""
        array = self.const(index)
        if array is None:
            raise ValueError(f"{self.label}: input {index} is computed at run time")
        return array

    def shape(self, index: int) -> Dims | None:
        """An input's dims (None: not fixed), or None when even the rank is unknown."""
        return _dims(self.value(index))

    def dims(self, index: int) -> Dims:
        """An input's dims where a check has made sure that the rank is known."""
        shape = self.shape(index)
        if shape is None:
            raise ValueError(f"{self.label}: the rank of input {index} is unknown")
        return shape

    def rank(self, index: int) -> int | None:
        """An input's rank."""
        shape = self.shape(index)
        return None if shape is None else len(shape)

    def dtype(self, index: int) -> str | None:
        """An input's dtype, by numpy's name."""
        value = self.value(index)
        return None if value is None else dtype_name(value)

    def out_shape(self, index: int = 0) -> Dims | None:
        """An output's dims."""
        return _dims(self.node.outputs[index])

    def out_dtype(self, index: int = 0) -> str | None:
        """An output's dtype."""
        return dtype_name(self.node.outputs[index])

    def used(self, index: int) -> bool:
        """Whether an optional output is there and read."""
        if index >= len(self.node.outputs):
            return False
        output = self.node.outputs[index]
        return bool(output.name) and (bool(output.uses()) or output.is_graph_output())

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value; tensors as arrays."""
        attribute = self.node.attributes.get(name)
        if attribute is None:
            return default
        return attribute.value.numpy() if attribute.type == ir.AttributeType.TENSOR else attribute.value

    def integer(self, name: str, default: int = 0) -> int:
        """An integer attribute."""
        return int(self.attribute(name, default))

    def real(self, name: str, default: float = 0.0) -> float:
        """A float attribute."""
        return float(self.attribute(name, default))

    def text(self, name: str, default: str = "") -> str:
        """A string attribute."""
        value = self.attribute(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def integers(self, name: str, default: Sequence[int] = ()) -> list[int]:
        """A list of integers."""
        return [int(item) for item in self.attribute(name, default)]

    def param(self, index: int, name: str = "") -> np.ndarray | None:
        """What newer opsets pass as the constant input ``index`` and older ones as the attribute ``name``."""
        value = self.const(index)
        if value is not None:
            return value
        held = self.attribute(name) if name else None
        return None if held is None else np.asarray(held)

    def axes(self, index: int, name: str = "axes") -> list[int] | None:
        """Axes from an input or an attribute, counted from the front; None when not given."""
        axes = self.param(index, name)
        if axes is None:
            return None
        rank = len(self.dims(0))
        return [int(axis) % rank for axis in np.atleast_1d(axes)]

    def axis(self, default: int, name: str = "axis") -> int:
        """One axis attribute, counted from the front."""
        return self.integer(name, default) % max(1, len(self.dims(0)))


def _dims(value: ir.Value | None) -> Dims | None:
    if value is None:
        return None
    array = constant(value)
    if array is not None:
        return array.shape
    if value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else None for dim in value.shape)
