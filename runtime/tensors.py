"""What a network's inputs and outputs look like."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

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


def side_dims(specs: Sequence[TensorSpec]) -> set[str]:
    """The symbolic dims that are heights and widths of images: whoever chooses sizes has to know them, for no network takes one pixel.

    An image has a batch, channels and then symbolic dims alone, or channels last; dims that other inputs have too (the length of
    a mask) are none of its sides.
    """
    sides = {spec.name: _sides(spec) for spec in specs}
    others = {dim for spec in specs if not sides[spec.name] for dim in spec.shape if isinstance(dim, str)}
    return {str(dim) for dims in sides.values() if not others & {*dims} for dim in dims}


def _sides(spec: TensorSpec) -> tuple[int | str, ...]:
    if len(spec.shape) < _RANK_OF_IMAGES:
        return ()
    dims = spec.shape[1:-1] if spec.shape[-1] in _CHANNELS else spec.shape[2:]
    return dims if all(isinstance(dim, str) for dim in dims) else ()
