"""Tensors of other libraries without a copy, by DLPack (https://dmlc.github.io/dlpack, version 0.8): numpy, torch, CuPy, JAX."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewise.runtime.errors import RunError

CPU, CUDA = 1, 2  # kDLCPU, kDLCUDA
_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
_KINDS = {code: kind for kind, code in _CODES.items()}
_NAME = b"dltensor"


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("id", ctypes.c_int32))


class _DType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device", _Device), ("ndim", ctypes.c_int32), ("dtype", _DType),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64),
    )  # fmt: skip


class _Managed(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))
_Destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_python = ctypes.pythonapi
_python.PyCapsule_GetPointer.restype, _python.PyCapsule_GetPointer.argtypes = (
    ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p],
)  # fmt: skip
_python.PyCapsule_New.restype, _python.PyCapsule_New.argtypes = (
    ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p],
)  # fmt: skip
_python.PyCapsule_IsValid.restype, _python.PyCapsule_IsValid.argtypes = ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p]
_get_from_address = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _python)
)


@dataclass(frozen=True)
class DeviceTensor:
    """Memory that somebody owns, described. Itself a DLPack producer, so that ``torch.from_dlpack`` takes it without a copy.

    Attributes:
        address: of the first element.
        shape: without gaps, last dim fastest.
        dtype: numpy's.
        device: ``(type, id)`` as DLPack has them: (1, 0) the processor, (2, n) GPU n.
        owner: what keeps the memory alive.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype
    device: tuple[int, int]
    owner: Any

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __dlpack_device__(self) -> tuple[int, int]:
        """Where it lies."""
        return self.device

    def __dlpack__(self, *, stream: int | None = None, **_: Any) -> Any:
        """A capsule for one consumer. The engine has waited for its results, so no stream needs to."""
        del stream
        return _export(self)


def borrow(array: Any, stream: int | None) -> DeviceTensor:
    """See a tensor of another library; it must outlive the result's use.

    Args:
        array: has ``__dlpack__`` and ``__dlpack_device__``.
        stream: the CUDA stream that will read it: the producer makes it wait. None: none will.

    Raises:
        RunError: a type that numpy has not, or gaps in memory.
    """
    kind, number = array.__dlpack_device__()
    capsule = array.__dlpack__(stream=stream) if kind == CUDA else array.__dlpack__()
    tensor = ctypes.cast(_python.PyCapsule_GetPointer(capsule, _NAME), ctypes.POINTER(_Managed)).contents.tensor
    shape = tuple(tensor.shape[: tensor.ndim])
    if tensor.dtype.code not in _KINDS or tensor.dtype.lanes != 1:
        raise _unfit(f"DLPack's type code {tensor.dtype.code} with {tensor.dtype.bits} bits", "a type that numpy has")
    letter = _KINDS[tensor.dtype.code]
    dtype = np.dtype(bool) if letter == "b" else np.dtype(f"{letter}{tensor.dtype.bits // 8}")
    if 0 not in shape and tensor.strides and not _without_gaps(shape, tensor.strides[: tensor.ndim]):
        raise _unfit(f"strides {tensor.strides[: tensor.ndim]}", "a tensor without gaps")
    return DeviceTensor((tensor.data or 0) + tensor.byte_offset, shape, dtype, (int(kind), int(number)), capsule)


def to_library(arrays: Mapping[str, Any], example: Any) -> dict[str, Any]:
    """The same memory as arrays of the library that the example is of; as they are where it has no ``from_dlpack``."""
    module = sys.modules.get(type(example).__module__.split(".", maxsplit=1)[0])
    take = getattr(module, "from_dlpack", None)
    return {name: array if take is None else take(array) for name, array in arrays.items()}


def _without_gaps(shape: tuple[int, ...], strides: list[int]) -> bool:
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != step:
            return False
        step *= size
    return True


_exported: dict[int, tuple[Any, ...]] = {}


def _free(managed: Any) -> None:
    _exported.pop(ctypes.addressof(managed.contents), None)


def _drop(capsule: int) -> None:
    """A capsule that nobody consumed: a consumer renames it and calls the deleter itself."""
    if _python.PyCapsule_IsValid(capsule, _NAME):
        _exported.pop(_get_from_address(capsule, _NAME), None)


_FREE, _DROP = _Deleter(_free), ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_drop)


def _export(array: DeviceTensor) -> Any:
    dims = (ctypes.c_int64 * max(len(array.shape), 1))(*array.shape)
    dtype = _DType(_CODES[array.dtype.kind], array.dtype.itemsize * 8, 1)
    tensor = _Tensor(array.address, _Device(*array.device), len(array.shape), dtype, dims, None, 0)
    managed = _Managed(tensor, None, _FREE)
    key = ctypes.addressof(managed)
    _exported[key] = (managed, dims, array)
    destructor: Any = _DROP
    return _python.PyCapsule_New(key, _NAME, ctypes.cast(destructor, ctypes.c_void_p))


def _unfit(found: str, expected: str) -> RunError:
    return RunError(
        "cannot take a tensor as it lies in memory",
        found=found,
        expected=expected,
        fix="Make it contiguous, or pass a numpy array",
    )
