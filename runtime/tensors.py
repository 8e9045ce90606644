"""What a network's inputs and outputs look like."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from edgewise.runtime.errors import RunError

_SHORT = {
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
    "bf16": "bfloat16",
    "bool": "bool",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "u8": "uint8",
    "u16": "uint16",
    "u32": "uint32",
}
DTYPES = frozenset(_SHORT.values())
_RANK_OF_IMAGES = 4
_CHANNELS = (1, 3, 4)
_EARS = (1, 2)
DimKind = Literal["side", "signal"]
_SPEC = re.compile(r"^(?P<name>[^=]+)=(?P<dtype>[a-z0-9]+)\[(?P<dims>[^\]]*)\]$")


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype (numpy's name) and shape; a string as a dim is a symbolic (dynamic) one.

    >>> TensorSpec.parse("x=f32[N,3,224,224]")
    TensorSpec(name='x', dtype='float32', shape=('N', 3, 224, 224))
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    @classmethod
    def parse(cls, text: str) -> TensorSpec:
        """Read ``NAME=f32[1,3,224,224]``, the form of the command line's ``--input``.

        Raises:
            RunError: the text has another form or an unknown dtype.
        """
        match = _SPEC.match(text.strip())
        dtype = _SHORT.get(match["dtype"], match["dtype"]) if match else ""
        if not match or dtype not in DTYPES:
            raise RunError(
                "cannot read an input's description",
                where=f"--input {text}",
                expected="NAME=DTYPE[DIM,DIM,…] such as x=f32[1,3,224,224] or ids=i64[batch,seq]",
                fix=f"Use one of the dtypes {', '.join(_SHORT)}",
            )
        dims = [dim.strip() for dim in match["dims"].split(",") if dim.strip()]
        return cls(match["name"], dtype, tuple(int(dim) if dim.isdigit() else dim for dim in dims))

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> TensorSpec:
        """The inverse of :meth:`to_json`; keys of the manifest beyond name, dtype and shape are ignored."""
        return cls(entry["name"], entry["dtype"], tuple(entry["shape"]))

    def to_json(self) -> dict[str, Any]:
        """As it stands in a bundle's manifest."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}

    def concrete(self, dynamic: int = 1, sizes: Mapping[str, int] = MappingProxyType({})) -> tuple[int, ...]:
        """The shape with every symbolic dim set to what ``sizes`` has for it, else to ``dynamic``."""
        return tuple(dim if isinstance(dim, int) else sizes.get(dim, dynamic) for dim in self.shape)

    def fits(self, array: np.ndarray) -> bool:
        """Whether an array has this dtype, rank and every fixed dim."""
        dims = zip(self.shape, array.shape, strict=False)
        same = array.ndim == len(self.shape) and all(isinstance(want, str) or want == have for want, have in dims)
        return same and array.dtype.name == self.dtype

    def check(self, array: np.ndarray, where: str = "", fix: str = "") -> None:
        """Refuse an array of another dtype, rank or fixed dim; ``fix`` replaces the usual advice.

        Raises:
            RunError: says which input, what came and what was wanted.
        """
        if not self.fits(array):
            raise RunError(
                f"input {self.name!r} does not fit",
                where=where,
                found=f"{array.dtype.name}{list(array.shape)}",
                expected=f"{self.dtype}{list(self.shape)}".replace("'", ""),
                fix=fix or "Pass an array of that dtype and shape",
            )


def long_dims(specs: Sequence[TensorSpec]) -> dict[str, DimKind]:
    """The symbolic dims that must not be small: whoever chooses sizes has to know them, for no network takes one pixel or hears in one sample.

    A "side" is a height or width: an image has a batch, channels and then symbolic dims alone, or channels last. A "signal" is how many
    samples a sound has: floating values of one symbolic dim, behind a batch and up to two channels at the most. Dims that
    other inputs have too (the length of a mask) are neither.
    """
    kinds = {spec.name: _kinds(spec) for spec in specs}
    others = {dim for spec in specs for dim in spec.shape if isinstance(dim, str) and dim not in kinds[spec.name]}
    return {dim: kind for found in kinds.values() if not others & {*found} for dim, kind in found.items()}


def batch_dim(specs: Sequence[TensorSpec]) -> str | None:
    """The symbolic dim that is how many samples there are: the first one of every input, of two axes and more, and of no other axis."""
    first = {spec.shape[0] if len(spec.shape) > 1 else None for spec in specs if spec.shape}
    dim = next(iter(first)) if len(first) == 1 else None
    others = {other for spec in specs for other in spec.shape[1:]}
    return dim if isinstance(dim, str) and dim not in others else None


def _kinds(spec: TensorSpec) -> dict[str, DimKind]:
    if len(spec.shape) >= _RANK_OF_IMAGES:
        dims = spec.shape[1:-1] if spec.shape[-1] in _CHANNELS else spec.shape[2:]
        sides = [dim for dim in dims if isinstance(dim, str)]
        return dict.fromkeys(sides, "side") if len(sides) == len(dims) else {}
    if not spec.shape or not spec.dtype.startswith("float"):
        return {}
    *before, last = spec.shape
    mono = all(size in _EARS for size in before[1:])
    return {last: "signal"} if isinstance(last, str) and mono else {}
