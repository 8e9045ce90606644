"""What an operator's builder works with: the node, MIL's builder, and the values made so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgewise.targets.coreml.compact import compact
from edgewise.targets.coreml.held import Packed, Tall
from edgewise.targets.coreml.names import KEPT, MARK
from edgewise.targets.coreml.node import NodeView, constant

_LEAST_OPERAND = 1024  # smaller ones are vectors that passes merge into layers
_FIRST_MASK = 1e38
_LARGEST_HALF = 65504.0


class Values:
    """The MIL side of the graph's values.

    Args:
        mb: coremltools' builder.
        ios: minimum deployment target.
        half: the program will compute in float16.
    """

    def __init__(self, mb: Any, ios: int, half: bool) -> None:
        self.mb, self.ios, self.half = mb, ios, half
        self._made: dict[ir.Value, Any] = {}
        self._named: set[Any] = set()
        self.clamped: list[str] = []
        self.weights: dict[tuple[ir.Value, int], Any] = {}

    def put(self, value: ir.Value, held: Any) -> None:
        """Record what was built for a value: a variable, ``Packed`` or ``Tall``."""
        self._made[value] = held

    def held(self, value: ir.Value) -> Any:
        """What stands for a value; a constant becomes a variable when it is first read."""
        if value not in self._made:
            array = constant(value)
            if array is None:
                raise KeyError(value.name)
            self._made[value] = self.mb.const(val=self.array(array, value.name or ""))
        return self._made[value]

    def var(self, value: ir.Value) -> Any:
        """The variable for a value."""
        held = self.held(value)
        if isinstance(held, Packed):
            return held.var(self.mb)
        return held.var if isinstance(held, Tall) else held

    def weight(self, array: np.ndarray, name: str, axis: int) -> Any:
        """A constant that layers multiply by: in fewer bytes where it has zeros or few values; ``axis``: output channels."""
        plain = self.array(array, name)
        made = compact(self.mb, plain, axis, self.ios, 2 if self.half else 4) if array.dtype.kind == "f" else None
        return plain if made is None else made

    def name(self, held: Any, name: str) -> None:
        """Give the operation that makes a value the value's name, so that it is found again in the saved program."""
        if isinstance(held, Packed):
            return
        var = held.var if isinstance(held, Tall) else held
        if var.op is not None and var not in self._named:
            var.set_name(MARK + name)
            if var is var.op.outputs[0]:  # passes name what they put in its place after the operation
                var.op.name = MARK + name
            self._named.add(var)

    def keep(self, held: Any, building: Building) -> None:
        """Mark the operations that a node is made of, back to what it reads, to stay in float32; the last has its tensor's name."""
        if isinstance(held, Packed):
            return
        reads = {self.var(value) for value in building.node.inputs if value is not None}
        left = _read_by(held.var if isinstance(held, Tall) else held)
        while left:
            var = left.pop()
            if var in reads or var in self._named or var.op is None or var.op.op_type.startswith("const"):
                continue
            var.op.name = f"{KEPT}{len(self._named)}"
            var.set_name(var.op.name)
            self._named.add(var)
            left += _read_by(var)

    def array(self, array: np.ndarray, name: str) -> Any:
        """A constant in a dtype that MIL has: int64 as int32, numbers that stand for infinity within float16.

        A mask of -3.4e38 would become -inf in float16, and 0 × -inf is NaN: it becomes -65504.
        """
        if array.dtype == np.int64:
            array = array.astype(np.int32)
        if self.half and array.dtype == np.float32:
            huge = np.isfinite(array) & (np.abs(array) >= _FIRST_MASK)
            if huge.any():
                self.clamped.append(name)
                array = np.where(huge, np.sign(array) * np.float32(_LARGEST_HALF), array)
        return array[()] if array.ndim == 0 else np.ascontiguousarray(array)


def _read_by(var: Any) -> list[Any]:
    """The variables that the operation of a variable reads."""
    found: list[Any] = []
    for source in () if var.op is None else var.op.inputs.values():
        found += source if isinstance(source, list | tuple) else [source]
    return [source for source in found if source is not None]


class Building(NodeView):
    """A node that is being built. ``views`` holds inputs that are read in another shape."""

    def __init__(self, node: ir.Node, opset: int, values: Values) -> None:
        super().__init__(node, opset, values.ios)
        self.values = values
        self.mb = values.mb
        self.views: dict[int, Any] = {}

    def x(self, index: int = 0) -> Any:
        """An input as a variable."""
        if index in self.views:
            return self.views[index]
        value = self.value(index)
        if value is None:
            raise ValueError(f"{self.label}: input {index} is left out")
        return self.values.var(value)

    def held(self, index: int) -> Any:
        """An input as it is held: a variable, ``Packed`` or ``Tall``."""
        value = self.value(index)
        return None if value is None else self.values.held(value)

    def packed(self, index: int) -> Packed | None:
        """An input when it is a weight in integers."""
        value = self.value(index)
        held = None if value is None or constant(value) is not None else self.values.held(value)
        return held if isinstance(held, Packed) else None

    def weight(self, index: int, axis: int) -> Any:
        """An input that a layer multiplies by; a constant takes as few bytes as it can. ``axis``: output channels."""
        value, array = self.value(index), self.const(index)
        if value is None or array is None:
            return self.x(index)
        if (value, axis) not in self.values.weights:
            self.values.weights[value, axis] = self.values.weight(array, self.label, axis)
        return self.values.weights[value, axis]

    def operand(self, index: int) -> Any:
        """An input as a variable; a constant of its own for each element (anchors, masks) takes as few bytes as it can."""
        array = self.const(index)
        if index in self.views or array is None or array.size < _LEAST_OPERAND:
            return self.x(index)
        return self.weight(index, array.ndim - 1)

    def floats(self, index: int = 0) -> Any:
        """An input as floats: integers and booleans are cast."""
        return self.x(index) if self.is_float(index) else self.mb.cast(x=self.x(index), dtype="fp32")

    def number(self, index: int = 0) -> Any:
        """An input that operations without a boolean form can take: booleans as int32 of 0 and 1."""
        return self.mb.cast(x=self.x(index), dtype="int32") if self.dtype(index) == "bool" else self.x(index)

    def same(self, var: Any, index: int = 0) -> Any:
        """The inverse of :meth:`number`: back to booleans when the input was."""
        return self.mb.cast(x=var, dtype="bool") if self.dtype(index) == "bool" else var

    def is_float(self, index: int = 0) -> bool:
        """Whether an input is float16 or float32."""
        return self.dtype(index) in ("float16", "float32")

    def like(self, number: float, index: int = 0) -> Any:
        """A scalar in the dtype of an input."""
        kind = {"float16": np.float16, "float32": np.float32}.get(self.dtype(index) or "", np.int32)
        return kind(number)

    def array(self, array: np.ndarray) -> Any:
        """An array as MIL has it."""
        return self.values.array(array, self.label)

    def shape_of(self, var: Any, dims: Sequence[int | Any]) -> Any:
        """A shape whose parts may be variables: a list when all are numbers, else the variable of their concatenation."""
        if all(isinstance(dim, int) for dim in dims):
            return list(dims)
        parts = [np.array([dim], np.int32) if isinstance(dim, int) else dim for dim in dims]
        return self.mb.concat(values=parts, axis=0)

    def dim(self, var: Any, axis: int) -> Any:
        """A dim of a variable at run time, as int32 [1]."""
        return self.mb.slice_by_size(x=self.mb.shape(x=var), begin=[axis], size=[1])
