"""Values of the program's protobuf as arrays: immediate ones, and those in ``weight.bin``."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from coremltools.proto import MIL_pb2

from edgewise.targets.base import TargetError

_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "FLOAT16": np.dtype(np.float16),
    "FLOAT32": np.dtype(np.float32),
    **{f"{sign}INT{bits}": np.dtype(f"{sign.lower()}int{bits}") for sign in ("", "U") for bits in (8, 16, 32)},
    "INT4": np.dtype(ml_dtypes.int4),
    "UINT4": np.dtype(ml_dtypes.uint4),
    # Numbers of so few bits have a byte each once they are read.
    **{f"UINT{bits}": np.dtype(np.uint8) for bits in (1, 2, 3, 6)},
}
_BITS = {"INT4": 4, "UINT4": 4, **{f"UINT{bits}": bits for bits in (1, 2, 3, 6)}}
_READERS = {"FLOAT32": "float", "FLOAT16": "fp16"}


def numpy_dtype(code: int) -> np.dtype[Any]:
    """Numpy's dtype for one of MIL's.

    Raises:
        TargetError: one that the converter never writes.
    """
    name = MIL_pb2.DataType.Name(code)
    if name not in _DTYPES:
        raise TargetError(
            "cannot evaluate the Core ML program",
            where=f"dtype {name}",
            found="a dtype that the evaluator does not know",
            expected=", ".join(_DTYPES),
            fix="Build the bundle again with this version of edgewise",
        )
    return _DTYPES[name]


class Weights:
    """``weight.bin`` of a package; opened when first read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: Any = None

    def value(self, value: Any) -> Any:
        """An array (a scalar when rank 0), a string, or a list of strings."""
        return self._from_file(value) if value.WhichOneof("value") == "blobFileValue" else _immediate(value)

    def _from_file(self, value: Any) -> np.ndarray:
        from coremltools.libmilstoragepython import _BlobStorageReader

        code = value.type.tensorType.dataType
        name, dtype = MIL_pb2.DataType.Name(code), numpy_dtype(code)
        try:
            if self._reader is None:
                self._reader = _BlobStorageReader(str(self._path))
            read = getattr(self._reader, f"read_{_READERS.get(name, name.lower())}_data")
            raw = np.asarray(read(value.blobFileValue.offset))
        except Exception as error:  # the reader's own errors have no common class
            raise TargetError(
                "cannot read the Core ML package",
                where=str(self._path),
                found=f"no {name.lower()} tensor at byte {value.blobFileValue.offset} ({error})",
                expected="the weights that the program names",
                fix="Copy or build the bundle again",
            ) from error
        flat = raw.view(dtype) if name == "FLOAT16" else raw.astype(dtype)
        shape = _shape(value.type)
        return flat[: prod(shape)].reshape(shape)


def _shape(value_type: Any) -> tuple[int, ...]:
    return tuple(int(dim.constant.size) for dim in value_type.tensorType.dimensions)


def _unpacked(packed: bytes, name: str, count: int) -> np.ndarray:
    """Numbers of a few bits are one after the other, least bit first."""
    dtype = _DTYPES[name]
    if name not in _BITS:
        return np.frombuffer(packed, dtype)
    width = _BITS[name]
    planes = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")[: count * width].reshape(count, width)
    numbers: np.ndarray = (planes.astype(np.int16) << np.arange(width)).sum(axis=1)
    if name == "INT4":
        numbers = np.where(numbers >= 1 << (width - 1), numbers - (1 << width), numbers)
    return numbers.astype(dtype)


def _immediate(value: Any) -> Any:
    tensor = value.immediateValue.tensor
    kind = tensor.WhichOneof("value")
    shape = _shape(value.type)
    if kind == "strings":
        texts = list(tensor.strings.values)
        return texts if shape else texts[0]
    dtype = numpy_dtype(value.type.tensorType.dataType)
    if kind == "bytes":
        flat = _unpacked(tensor.bytes.values, MIL_pb2.DataType.Name(value.type.tensorType.dataType), prod(shape))
    else:
        flat = np.array(getattr(tensor, kind).values if kind else [], dtype)
    return flat.reshape(shape) if shape else flat.reshape(())[()]
