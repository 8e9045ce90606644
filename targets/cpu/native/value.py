"""What the compiler knows of a value of the network: its form, where it lies, and how its bytes are read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgewise.targets.cpu.native.form import Form
from edgewise.targets.cpu.native.plan import Dim, DType, Tensor, dim

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgewise.targets.cpu.native.coded import Coded


class Refusal(Exception):  # noqa: N818
    """The native engine does not take a node; the text says why. Becomes a note or an error with the node's name.

    Attributes:
        node: where it is not the one that is being lowered.
    """

    def __init__(self, reason: str, node: ir.Node | None = None) -> None:
        super().__init__(reason)
        self.node = node


@dataclass(frozen=True)
class Quant:
    """Real value = (byte − zero_point) · scale, for u8 or s8."""

    scale: float
    zero_point: int
    dtype: DType

    @property
    def levels(self) -> np.ndarray:
        """All integers of the dtype, in the order of their bytes; int64 [256]."""
        levels: np.ndarray = np.arange(256).astype(np.uint8 if self.dtype is DType.U8 else np.int8).astype(np.int64)
        return levels

    @property
    def real(self) -> np.ndarray:
        """What each byte stands for; float32 [256]."""
        return ((self.levels - self.zero_point).astype(np.float32) * np.float32(self.scale)).astype(np.float32)

    @property
    def span(self) -> tuple[float, float]:
        """The least and the greatest real value."""
        real = self.real
        return float(real.min()), float(real.max())

    def rounded(self, real: np.ndarray) -> np.ndarray:
        """The nearest integers, halves to even, saturated; as ONNX's QuantizeLinear."""
        levels = self.levels
        integers = np.rint(np.asarray(real, np.float32) / np.float32(self.scale)) + self.zero_point
        kept = np.clip(integers, levels.min(), levels.max())
        return np.asarray(kept, np.uint8 if self.dtype is DType.U8 else np.int8)


@dataclass(frozen=True)
class IntegerWeights:
    """A constant that was quantized: real = integers · scale, along an axis or (None) one scale for all."""

    integers: np.ndarray
    scale: np.ndarray
    axis: int | None


@dataclass(frozen=True, eq=False)
class Value:
    """A value of the network in the plan.

    Attributes:
        form: its axes, and the order in memory. Of constants: as ONNX has it.
        tensor: where it lies; None for constants.
        lane: of a C4 tensor the factor whose inner four elements lie together; always the last of the channels.
        quant: how to read bytes as real numbers. With a float tensor: the rounding is still to be done, by whoever reads it.
        array: of a constant, its elements.
        sizes: of integers that follow from the inputs' shapes, each element; of their own axes.
        weights: of a constant that was dequantized from int8 without zero points, what it was before.
        coded: of a constant that was dequantized from 4 or 8 bits, what it was before.
        raw: integers to ONNX as well (between QuantizeLinear and DequantizeLinear).
    """

    form: Form
    tensor: Tensor | None = None
    lane: int | None = None
    quant: Quant | None = None
    array: np.ndarray | None = None
    sizes: tuple[Dim, ...] | None = None
    weights: IntegerWeights | None = None
    coded: Coded | None = None
    raw: bool = False

    @property
    def dims(self) -> tuple[Dim, ...]:
        """As ONNX sees it."""
        return self.form.dims

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.form.axes)

    @property
    def dtype(self) -> DType:
        """Of the elements in memory."""
        if self.tensor is not None:
            return self.tensor.dtype
        return dtype_of(self.array) if self.array is not None else DType.S64

    @property
    def is_float(self) -> bool:
        """Whether it lies in memory as float32 without a rounding to be done."""
        return self.dtype is DType.F32 and self.quant is None

    @property
    def in_bytes(self) -> bool:
        """Whether it lies in memory as 8-bit integers that stand for real numbers."""
        return self.quant is not None and self.dtype in (DType.U8, DType.S8)

    def axis(self, number: int) -> int:
        """A possibly negative axis as a positive one.

        Raises:
            Refusal: there is no such axis.
        """
        if not -self.rank <= number < self.rank:
            raise Refusal(f"axis {number} of a value with {self.rank} axes")
        return number % self.rank

    def size(self, axis: int) -> int:
        """A size that must be known now.

        Raises:
            Refusal: it depends on the inputs.
        """
        size = self.dims[axis].constant
        if size is None:
            raise Refusal(f"axis {axis} depends on the inputs' shapes; fix them with --input")
        return size

    def with_form(self, form: Form, lane: int | None = None) -> Value:
        """The same memory under another form."""
        return replace(self, form=form, lane=lane, weights=None)


_DTYPES = {
    "float32": DType.F32,
    "float16": DType.F16,
    "bfloat16": DType.BF16,
    "uint8": DType.U8,
    "int8": DType.S8,
    "int32": DType.S32,
    "int64": DType.S64,
    "bool": DType.BOOL,
    "float64": DType.F64,
    "int16": DType.S16,
    "uint16": DType.U16,
}
EDGES = (DType.BF16, DType.F64, DType.S16, DType.U16)  # at inputs and outputs alone (``half.py``)
_NUMPY = {number: name for name, number in _DTYPES.items()}


def dtype_of(array: np.ndarray) -> DType:
    """The engine's name for numpy's dtype.

    Raises:
        Refusal: it has none.
    """
    found = dtype_named(array.dtype.name)
    if found in EDGES:
        raise Refusal(f"dtype {array.dtype.name}")
    return found


def dtype_named(name: str) -> DType:
    """The engine's dtype by numpy's name.

    Raises:
        Refusal: it has none.
    """
    if name not in _DTYPES:
        raise Refusal(f"dtype {name}")
    return _DTYPES[name]


def numpy_name(dtype: DType) -> str:
    """Numpy's name of one of the engine's dtypes."""
    return _NUMPY[dtype]


def constant_value(array: np.ndarray, weights: IntegerWeights | None = None) -> Value:
    """A constant of the network; integers are known sizes as well."""
    array = np.asarray(array)
    form = Form.plain([dim(int(size)) for size in array.shape])
    small = array.dtype.kind in "iu" and array.size <= 64 and array.ndim <= 1
    sizes = tuple(dim(int(one)) for one in array.reshape(-1)) if small else None
    return Value(form, array=array, sizes=sizes, weights=weights)
