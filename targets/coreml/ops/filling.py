"""Tensors made from shapes and numbers, and casts between dtypes."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgewise.targets.coreml.building import Building
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import ANY, BYTES, NUMBERS, Row

_MIL_DTYPES = {
    "float16": "fp16",
    "float32": "fp32",
    "int32": "int32",
    "int64": "int32",
    "bool": "bool",
    "int8": "int8",
    "uint8": "uint8",
}


def _shape(b: Building) -> Any:
    rank = len(b.dims(0))
    start, end = (_border(b.integer(name, default), rank) for name, default in (("start", 0), ("end", rank)))
    shape = b.mb.shape(x=b.number())
    if (start, end) == (0, rank):
        return shape
    return b.mb.slice_by_size(x=shape, begin=[start], size=[end - start])


def _border(place: int, rank: int) -> int:
    return min(max(place + rank if place < 0 else place, 0), rank)


def _size(b: Building) -> Any:
    return b.mb.reduce_prod(x=b.mb.shape(x=b.number()), axes=[0], keep_dims=False)


def _filled(b: Building) -> Any:
    value = b.attribute("value")
    number = np.float32(0) if value is None else np.ravel(value)[0]
    return b.mb.fill(shape=b.x(), value=b.array(np.asarray(number)))


def _range(b: Building) -> Any:
    return b.mb.range_1d(start=b.x(0), end=b.x(1), step=b.x(2))


def _cast(b: Building) -> Any:
    have, want = b.dtype(0), b.out_dtype()
    if _MIL_DTYPES[have or ""] == _MIL_DTYPES[want or ""]:
        return b.mb.identity(x=b.x())
    return b.mb.cast(x=b.x(), dtype=_MIL_DTYPES[want or ""])


def _check_cast(node: NodeView) -> Refusal | None:
    want = node.out_dtype() or "float32"
    if want in BYTES and node.ios < 17:
        return Refusal(f"a cast to {want}", f"{want} from iOS 17 on", "Build for iOS 17", "attribute to")
    return None


ROWS = (
    Row("Shape", _shape, dtypes=ANY),
    Row("Size", _size, dtypes=ANY),
    Row("ConstantOfShape", _filled, dtypes=ANY),
    Row("Range", _range, dtypes=NUMBERS),
    Row("Cast", _cast, _check_cast, dtypes=ANY | BYTES, elementwise=True),
    Row("CastLike", _cast, _check_cast, dtypes=ANY | BYTES),
)
