"""What an engine file holds, before it is bytes: tensors with places, operators in order, dims that may depend on the inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from math import prod

import numpy as np

from edgewise.runtime.native_tensors import OPERATIONS


class DType(IntEnum):
    """As ``ew_dtype`` in edgewise.h."""

    F32 = 0
    F16 = 1
    BF16 = 2
    U8 = 3
    S8 = 4
    S32 = 5
    S64 = 6
    BOOL = 7
    F64 = 8
    S16 = 9
    U16 = 10

    @property
    def size_bytes(self) -> int:
        """Of one element."""
        return 1 if self in (DType.U8, DType.S8, DType.BOOL) else _SIZES.get(self, 2)


_SIZES = {DType.F32: 4, DType.S32: 4, DType.S64: 8, DType.F64: 8}


class Layout(IntEnum):
    """PLAIN is row-major; C4 is [N][C/4][spatial][4] for 8-bit tensors (src/tensor.h)."""

    PLAIN = 0
    C4 = 1


class Isa(IntEnum):
    """As ``Isa`` in src/cpu.h: each level includes those before it of its family, and the generic one.

    A plan names the least on which it may run; libedgewise then uses the best kernels that the processor has.
    """

    GENERIC = 0
    AVX2 = 1
    AVX512 = 2
    AVX512VNNI = 3
    AVX512BF16 = 4
    NEON = 16
    NEON_DOTPROD = 17
    NEON_I8MM = 18
    VEC4 = 32


@dataclass(frozen=True)
class Dim:
    """A number known when the inputs' shapes are: a constant, a symbol, or made of two others. Constants fold at once.

    One of kind ``counted`` is known in a run alone, when its tensor has been written; it is at most ``left``.
    """

    kind: str
    value: int | str = 0
    left: Dim | None = None
    right: Dim | None = None
    tensor: Tensor | None = None

    def __add__(self, other: Dim | int) -> Dim:
        """Sum."""
        return _made("add", self, other)

    def __sub__(self, other: Dim | int) -> Dim:
        """Difference."""
        return _made("subtract", self, other)

    def __mul__(self, other: Dim | int) -> Dim:
        """Product."""
        return _made("multiply", self, other)

    def __floordiv__(self, other: Dim | int) -> Dim:
        """Rounded down."""
        return _made("floor_divide", self, other)

    def ceildiv(self, other: Dim | int) -> Dim:
        """Rounded up."""
        return _made("ceil_divide", self, other)

    def minimum(self, other: Dim | int) -> Dim:
        """The lesser of two."""
        return _made("minimum", self, other)

    def maximum(self, other: Dim | int) -> Dim:
        """The greater of two."""
        return _made("maximum", self, other)

    @property
    def constant(self) -> int | None:
        """Its value, when it depends on no input."""
        return int(self.value) if self.kind == "constant" else None

    @property
    def is_counted(self) -> bool:
        """Whether it depends on what the inputs hold, not on their shapes alone."""
        return self.kind == "counted" or any(one is not None and one.is_counted for one in (self.left, self.right))

    def at(self, symbols: int) -> int:
        """Its value with a number in place of every symbol, and of what is counted the most."""
        if self.kind == "counted" and self.left is not None:
            return self.left.at(symbols)
        if self.left is None or self.right is None:
            return int(self.value) if self.kind == "constant" else symbols
        return OPERATIONS[self.kind](self.left.at(symbols), self.right.at(symbols))


# What changes nothing as the right operand.
_NEUTRAL = {"add": 0, "subtract": 0, "multiply": 1, "floor_divide": 1, "ceil_divide": 1}
KINDS = ("constant", "symbol", *OPERATIONS, "counted")


def dim(value: Dim | int | str) -> Dim:
    """A constant from an int, a symbol from a string."""
    if isinstance(value, Dim):
        return value
    return Dim("symbol" if isinstance(value, str) else "constant", value)


def counted(tensor: Tensor, most: Dim) -> Dim:
    """What one S64 holds when an operator has written it: 0 to ``most``."""
    return Dim("counted", left=most, tensor=tensor)


def product(dims: Sequence[Dim]) -> Dim:
    """Of all; 1 for none."""
    constant = prod(size for one in dims if (size := one.constant) is not None)
    result = dim(constant)
    for one in dims:
        if one.constant is None:
            result = one if result.constant == 1 else result * one
    return result


def _made(kind: str, left: Dim, right: Dim | int) -> Dim:
    right = dim(right)
    if left.constant is not None and right.constant is not None:
        return dim(OPERATIONS[kind](left.constant, right.constant))
    if right.constant is not None and right.constant == _NEUTRAL.get(kind):
        return left
    if kind in ("add", "multiply") and left.constant == _NEUTRAL[kind]:
        return right
    if kind in ("add", "subtract") and right.constant is not None:
        return _moved(left, right.constant if kind == "add" else -right.constant)
    return Dim(kind, 0, left, right)


def _moved(one: Dim, offset: int) -> Dim:
    """A sum with a number, as one sum: a padded convolution of 3x3 then visibly keeps its input's size."""
    if one.kind == "add" and one.left is not None and one.right is not None and one.right.constant is not None:
        return _made("add", one.left, one.right.constant + offset)
    return Dim("add", 0, one, dim(offset))


@dataclass(eq=False)
class Storage:
    """Memory in the arena that tensors lie in. Several in one: views, or results computed in place."""

    size_bytes: Dim


@dataclass(eq=False)
class Tensor:
    """An operand of operators.

    Attributes:
        name: for messages and profiles.
        dtype: of its elements.
        dims: in the order that the engine uses: channels second.
        layout: see ``Layout``.
        data: of a constant, its bytes as they lie in the file, of any dtype and shape.
        storage: of the others, where it lies; a new one by default.
        offset_bytes: from the start of the storage.
    """

    name: str
    dtype: DType
    dims: tuple[Dim, ...]
    layout: Layout = Layout.PLAIN
    data: np.ndarray | None = None
    storage: Storage | None = None
    offset_bytes: Dim = field(default_factory=lambda: dim(0))

    def __post_init__(self) -> None:
        if self.data is None and self.storage is None:
            self.storage = Storage(self.size_bytes)

    @property
    def size_bytes(self) -> Dim:
        """What its dims and layout take."""
        dims = list(self.dims)
        if self.layout is Layout.C4:
            dims[1] = dims[1].ceildiv(4) * 4
        return product([*dims, dim(self.dtype.size_bytes)])


Attribute = int | float | str | Sequence[int] | Sequence[float] | Sequence[Dim]


@dataclass(eq=False)
class Op:
    """One step: an operator of libedgewise (runtime/native/src/ops), by name.

    Attributes:
        op: as in ``ops.inc``.
        name: the layer that it computes.
        inputs: None where an optional one is left out.
        outputs: written by it.
        attributes: a list of floats must not be empty; dims are lists too.
    """

    op: str
    name: str
    inputs: Sequence[Tensor | None]
    outputs: Sequence[Tensor]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass
class Plan:
    """A network as libedgewise runs it: operators in order.

    Attributes:
        isa: what a processor must have at least.
        limits: the most that a dim of the inputs may be, by name.
    """

    isa: Isa
    inputs: list[Tensor]
    outputs: list[Tensor]
    ops: list[Op]
    limits: dict[str, int] = field(default_factory=dict)
