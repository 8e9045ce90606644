"""The little of CUDA's driver API that an engine needs: memory, copies, a stream. No package but the GPU's driver.

Names and signatures: NVIDIA's CUDA Driver API reference (``cuda.h``).
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from typing import Any

import numpy as np

from edgewise.runtime.errors import RunError

_LIBRARIES = {"win32": ("nvcuda.dll",)}
_LINUX = ("libcuda.so.1", "libcuda.so")
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_NAME_BYTES = 256


class Gpu:
    """The first GPU, with its primary context made current and one stream. Not for two threads at once.

    Attributes:
        name: as the driver gives it.
        sm: compute capability, 10 · major + minor.

    Raises:
        RunError: there is no driver or no GPU.
    """

    def __init__(self, library: Any = None) -> None:
        self._library = library or _load_library()
        self._call("cuInit", ctypes.c_uint(0))
        count, device = ctypes.c_int(), ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        if count.value < 1:
            raise _no_gpu("a driver, but no GPU")
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        name = ctypes.create_string_buffer(_NAME_BYTES)
        self._call("cuDeviceGetName", name, ctypes.c_int(_NAME_BYTES), device)
        self.name = name.value.decode(errors="replace")
        self.sm = 10 * self._attribute(_CAPABILITY_MAJOR, device) + self._attribute(_CAPABILITY_MINOR, device)
        context, stream = ctypes.c_void_p(), ctypes.c_void_p()
        # The primary context is the one that TensorRT's own CUDA runtime uses.
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        weakref.finalize(self, self._library.cuDevicePrimaryCtxRelease_v2, device)
        self._call("cuCtxSetCurrent", context)
        self._call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(0))
        weakref.finalize(self, self._library.cuStreamDestroy_v2, stream)
        self._stream = stream

    @property
    def stream(self) -> int:
        """The stream's handle."""
        return self._stream.value or 0

    def buffer(self, size: int) -> GpuBuffer:
        """Memory on the GPU, freed with the object.

        Raises:
            RunError: there is not enough.
        """
        address = ctypes.c_uint64()
        size = max(size, 1)  # the driver refuses to give nothing
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        memory = GpuBuffer(address.value, size)
        # It holds on to the GPU's context until the memory is freed.
        weakref.finalize(memory, lambda gpu: gpu._library.cuMemFree_v2(address), self)
        return memory

    def upload(self, array: np.ndarray, memory: GpuBuffer) -> None:
        """Copy an array without gaps to the GPU; it must live until :meth:`wait`."""
        self._call(
            "cuMemcpyHtoDAsync_v2", ctypes.c_uint64(memory.address), ctypes.c_void_p(array.ctypes.data),
            ctypes.c_size_t(array.nbytes), self._stream,
        )  # fmt: skip

    def download(self, memory: GpuBuffer, array: np.ndarray) -> None:
        """Copy to an array without gaps, which is complete after :meth:`wait`."""
        self._call(
            "cuMemcpyDtoHAsync_v2", ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(memory.address),
            ctypes.c_size_t(array.nbytes), self._stream,
        )  # fmt: skip

    def wait(self) -> None:
        """Wait for the stream.

        Raises:
            RunError: something in it failed.
        """
        self._call("cuStreamSynchronize", self._stream)

    def _attribute(self, attribute: int, device: ctypes.c_int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(attribute), device)
        return value.value

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._library, function)(*arguments)
        if status == 0:
            return
        text = ctypes.c_char_p()
        self._library.cuGetErrorString(ctypes.c_int(status), ctypes.byref(text))
        reason = text.value.decode(errors="replace") if text.value else "unknown error"
        raise RunError(
            "the GPU's driver reports an error",
            where=function,
            found=f"{reason} ({status})",
            expected="a GPU with a working driver and enough free memory",
            fix="Check it with nvidia-smi",
        )


class GpuBuffer:
    """Address and size in bytes of memory on the GPU."""

    def __init__(self, address: int, size: int) -> None:
        self.address, self.size = address, size


def _load_library() -> Any:
    for name in _LIBRARIES.get(sys.platform, _LINUX):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise _no_gpu("no NVIDIA driver")


def _no_gpu(found: str) -> RunError:
    return RunError(
        "there is no GPU to run on",
        found=found,
        expected="an NVIDIA GPU with its driver",
        fix="Run the bundle on the device that it was built for",
    )
