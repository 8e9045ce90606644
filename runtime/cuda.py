"""The little of CUDA's driver API that an engine needs: memory, copies, a stream, events, graphs. No package but the GPU's driver.

Names and signatures: NVIDIA's CUDA Driver API reference (``cuda.h``).
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from edgewise.runtime.errors import RunError

_LIBRARIES = {"win32": ("nvcuda.dll",)}
_LINUX = ("libcuda.so.1", "libcuda.so")
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_NAME_BYTES = 256
_MOST_GRAPHS, _MOST_SEEN = 16, 256
_CAPTURE_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL


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

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array in page-locked memory, which copies to and from the GPU need no staging for; freed with its last view.

        Raises:
            RunError: there is not enough.
        """
        size = max(int(np.prod(shape)) * dtype.itemsize, 1)
        address = ctypes.c_void_p()
        self._call("cuMemHostAlloc", ctypes.byref(address), ctypes.c_size_t(size), ctypes.c_uint(0))
        memory = (ctypes.c_ubyte * size).from_address(address.value or 0)
        weakref.finalize(memory, lambda gpu: gpu._library.cuMemFreeHost(address), self)
        flat: np.ndarray = np.frombuffer(memoryview(memory), dtype, int(np.prod(shape)))
        return flat.reshape(shape)

    def free_bytes(self) -> int:
        """Memory on the GPU that nobody has."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def event(self) -> GpuEvent:
        """A moment in the stream, recorded with :meth:`mark`."""
        handle = ctypes.c_void_p()
        self._call("cuEventCreate", ctypes.byref(handle), ctypes.c_uint(0))
        event = GpuEvent(handle)
        weakref.finalize(event, lambda gpu: gpu._library.cuEventDestroy_v2(handle), self)
        return event

    def mark(self, event: GpuEvent) -> None:
        """Record the event when the stream gets here."""
        self._call("cuEventRecord", event.handle, self._stream)

    def between_ms(self, first: GpuEvent, second: GpuEvent) -> float:
        """Milliseconds between two recorded events, once the stream has passed both."""
        span = ctypes.c_float()
        self._call("cuEventElapsedTime", ctypes.byref(span), first.handle, second.handle)
        return span.value

    def capture(self, work: Callable[[], bool]) -> GpuGraph | None:
        """What ``work`` puts into the stream, as a graph to launch again; None when it returns False.

        Raises:
            RunError: something in it cannot be captured.
        """
        graph, launchable = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", self._stream, ctypes.c_int(_CAPTURE_THREAD_LOCAL))
        try:
            done = work()
        finally:
            self._call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        if not done:
            self._call("cuGraphDestroy", graph)
            return None
        try:
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(launchable), graph, ctypes.c_ulonglong(0))
        finally:
            self._call("cuGraphDestroy", graph)
        made = GpuGraph(launchable)
        weakref.finalize(made, lambda gpu: gpu._library.cuGraphExecDestroy(launchable), self)
        return made

    def launch(self, graph: GpuGraph) -> None:
        """Put a captured graph into the stream."""
        self._call("cuGraphLaunch", graph.handle, self._stream)

    def upload(self, array: np.ndarray, memory: GpuBuffer) -> None:
        """Copy an array without gaps to the GPU; it must live until :meth:`wait`."""
        self.upload_from(array.ctypes.data, array.nbytes, memory)

    def upload_from(self, address: int, size: int, memory: GpuBuffer) -> None:
        """Copy bytes of the processor's memory to the GPU; they must stay until :meth:`wait`."""
        self._call(
            "cuMemcpyHtoDAsync_v2", ctypes.c_uint64(memory.address), ctypes.c_void_p(address), ctypes.c_size_t(size),
            self._stream,
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


class GpuEvent:
    """A CUDA event."""

    def __init__(self, handle: ctypes.c_void_p) -> None:
        self.handle = handle


class GpuGraph:
    """A CUDA graph, instantiated."""

    def __init__(self, handle: ctypes.c_void_p) -> None:
        self.handle = handle


class LaunchedAgain:
    """Work that is put into the stream once as it is, then captured, then launched as a graph.

    Args:
        gpu: whose stream.
        enabled: whether to capture at all.
    """

    def __init__(self, gpu: Gpu, *, enabled: bool) -> None:
        self._gpu, self._enabled = gpu, enabled
        self.state = "not yet" if enabled else "off"
        self._seen: set[Hashable] = set()
        self._graphs: dict[Hashable, GpuGraph] = {}

    def leave_to(self, whom: str) -> None:
        """Somebody else captures."""
        self._enabled, self.state = False, f"by {whom}"

    def run(self, key: Hashable, work: Callable[[], bool]) -> bool:
        """Do the work for a key: everything that the graph depends on. The first time the engine may still set itself up.

        A stream that cannot be captured is said in ``state``, and the work is done without a graph from then on.
        """
        if not self._enabled:
            return work()
        if graph := self._graphs.get(key):
            self._gpu.launch(graph)
            return True
        if key not in self._seen:
            if len(self._seen) >= _MOST_SEEN:
                self._seen.clear()
            self._seen.add(key)
            return work()
        try:
            graph = self._gpu.capture(work)
        except RunError as error:
            self._enabled, self.state = False, f"off: {error.found}"
            return work()
        if graph is None:
            return False
        if len(self._graphs) >= _MOST_GRAPHS:
            self._graphs.pop(next(iter(self._graphs)))
        self._graphs[key], self.state = graph, "on"
        self._gpu.launch(graph)
        return True


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
