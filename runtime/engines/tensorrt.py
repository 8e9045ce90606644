"""The engine ``tensorrt``: an engine of TensorRT or TensorRT for RTX, run on the first NVIDIA GPU."""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from edgewise.runtime.bundle import Bundle
from edgewise.runtime.cuda import Gpu, GpuBuffer
from edgewise.runtime.engines import LayerTime, RunOptions, model_file
from edgewise.runtime.errors import RunError
from edgewise.runtime.extras import needs
from edgewise.runtime.tensors import TensorSpec

_LIBRARIES = ("tensorrt_rtx", "tensorrt")
_SHOWN_MESSAGES = 2


def open_engine(bundle: Bundle, options: RunOptions) -> TensorRtEngine:
    """Read the engine back.

    ``engine.settings``: ``model`` names the engine's file; ``library`` is ``tensorrt_rtx`` or ``tensorrt``; ``sm`` the compute
    capability that it is for (10 · major + minor), or a list of them.

    Raises:
        RunError: other settings, no GPU or driver, a GPU of another compute capability, another version of the library,
            or an engine that is not built yet.
        MissingExtraError: the library is not installed.
    """
    settings = bundle.manifest["engine"].get("settings", {})
    library, built_for = settings.get("library"), settings.get("sm")
    built_for = built_for if isinstance(built_for, list) else [built_for]
    where = f"{bundle.path}, engine.settings"
    if library not in _LIBRARIES:
        raise _unusable(where, f"library {library!r}", f"one of {', '.join(_LIBRARIES)}", "Build it again")
    if not all(type(sm) is int for sm in built_for):
        raise _unusable(where, f"sm {settings.get('sm')!r}", "a compute capability such as 89", "Build it again")
    model = model_file(bundle)
    if model.suffix == ".onnx":
        raise _unusable(
            str(model), "a graph from which the engine is yet to be built", "an engine",
            "Run the bundle's build script on the device, with the device's own TensorRT",
        )  # fmt: skip
    gpu = Gpu()
    if gpu.sm not in built_for:
        wanted = " or ".join(f"SM {sm}" for sm in built_for)
        raise _unusable(str(model), f"{gpu.name} with SM {gpu.sm}", wanted, "Build it again with the device's profile")
    return TensorRtEngine(model.read_bytes(), str(model), bundle, _import(library), gpu, options)


def _import(library: str) -> Any:
    if library == "tensorrt_rtx":
        with needs("tensorrt"):
            return importlib.import_module(library)
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        raise _unusable(
            "engine library", "no package tensorrt", "NVIDIA's own TensorRT", "On a Jetson it comes with JetPack; elsewhere install it from NVIDIA"
        ) from error  # fmt: skip


class TensorRtEngine:
    """One execution context with memory for its inputs and outputs, which grows to the largest shapes seen.

    Args:
        plan: the serialized engine.
        where: its file, for messages.
        bundle: names its inputs and outputs.
        library: the module ``tensorrt_rtx`` or ``tensorrt``.
        gpu: where it runs.
        options: with ``per_layer`` TensorRT's profiler is attached.
    """

    def __init__(self, plan: bytes, where: str, bundle: Bundle, library: Any, gpu: Gpu, options: RunOptions) -> None:
        self._where, self._library, self._gpu = where, library, gpu
        self._log = _make_log(library)
        # The runtime and the engine must outlive the context.
        self._runtime = library.Runtime(self._log)
        if (dla_core := bundle.manifest["engine"].get("settings", {}).get("dla_core")) is not None:
            self._runtime.DLA_core = dla_core
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        self._context: Any = self._engine.create_execution_context() if self._engine else None
        if self._context is None:
            raise _unusable(
                where,
                self._said(),
                f"an engine of {library.__name__} {library.__version__}",
                "Build it again with this version",
            )
        self._inputs = [spec.name for spec in bundle.inputs]
        self._outputs = [spec.name for spec in bundle.outputs]
        self._check_tensors([*bundle.inputs, *bundle.outputs])
        self._memory: dict[str, GpuBuffer] = {}
        self._operators = {
            layer.get("name"): layer.get("op", "") for layer in bundle.manifest["engine"].get("layers", [])
        }
        self._times: dict[str, list[float]] = {}
        if options.per_layer:
            self._profiler = _make_profiler(library, lambda name, ms: self._times.setdefault(name, []).append(ms))
            self._context.profiler = self._profiler

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Copy in, run, copy out, wait."""
        for name in self._inputs:
            if not self._context.set_input_shape(name, inputs[name].shape):
                raise _unusable(
                    f"{self._where}, input {name!r}", f"shape {list(inputs[name].shape)}; {self._said()}",
                    "a shape within the engine's optimization profile", "Build it again for this shape",
                )  # fmt: skip
            self._gpu.upload(inputs[name], self._place(name, inputs[name].nbytes))
        outputs = {name: self._output(name) for name in self._outputs}
        for name, array in outputs.items():
            self._place(name, array.nbytes)
        if not self._context.execute_async_v3(self._gpu.stream):
            raise _unusable(self._where, self._said(), "a run without errors", "See the message")
        for name, array in outputs.items():
            self._gpu.download(self._memory[name], array)
        self._gpu.wait()
        return outputs

    def layer_times(self) -> list[LayerTime]:
        """From TensorRT's profiler; a layer is what TensorRT fused into one."""
        return [
            LayerTime(name, self._operators.get(name, ""), "gpu", statistics.median(times), {"runs": len(times)})
            for name, times in self._times.items()
        ]

    def facts(self) -> dict[str, str]:
        """Library, version, unit and the GPU's name."""
        version = str(self._library.__version__)
        return {
            "library": self._library.__name__,
            "version": version,
            "unit": "gpu",
            "gpu": self._gpu.name,
            "sm": str(self._gpu.sm),
        }

    def _check_tensors(self, specs: list[TensorSpec]) -> None:
        """The engine reads and writes plain memory: another dtype than the manifest's would be garbage."""
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        have = {name: np.dtype(self._library.nptype(self._engine.get_tensor_dtype(name))).name for name in names}
        want = {spec.name: spec.dtype for spec in specs}
        if have != want:
            raise _unusable(self._where, f"the tensors {have}", f"those of the manifest: {want}", "Build it again")

    def _output(self, name: str) -> np.ndarray:
        shape = tuple(self._context.get_tensor_shape(name))
        if any(dim < 0 for dim in shape):
            raise _unusable(
                f"{self._where}, output {name!r}", f"shape {list(shape)}, which depends on the data", "a shape that follows from the inputs'",
                "Export the network without such an output",
            )  # fmt: skip
        return np.empty(shape, self._library.nptype(self._engine.get_tensor_dtype(name)))

    def _place(self, name: str, size: int) -> GpuBuffer:
        memory = self._memory.get(name)
        if memory is None or memory.size < size:
            memory = self._memory[name] = self._gpu.buffer(size)
        self._context.set_tensor_address(name, memory.address)
        return memory

    def _said(self) -> str:
        return "; ".join(self._log.errors[-_SHOWN_MESSAGES:]) or "a refusal without a reason"


def _make_log(library: Any) -> Any:
    """The base class exists only once the library is imported."""

    class Log(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (library.ILogger.Severity.INTERNAL_ERROR, library.ILogger.Severity.ERROR):
                self.errors.append(" ".join(message.split()))

    return Log()


def _make_profiler(library: Any, record: Callable[[str, float], None]) -> Any:
    class Profiler(library.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            library.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            record(layer_name, ms)

    return Profiler()


def _unusable(where: str, found: str, expected: str, fix: str) -> RunError:
    return RunError("cannot run the TensorRT engine", where=where, found=found, expected=expected, fix=fix)
