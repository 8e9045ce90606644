"""The engine ``tensorrt``: an engine of TensorRT or TensorRT for RTX, run on the first NVIDIA GPU."""

from __future__ import annotations

import importlib
import os
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgewise.runtime.bundle import Bundle
from edgewise.runtime.cuda import Gpu, GpuBuffer, LaunchedAgain
from edgewise.runtime.dlpack import CPU, CUDA, DeviceTensor
from edgewise.runtime.engines import LayerTime, RunOptions, model_file
from edgewise.runtime.errors import RunError
from edgewise.runtime.extras import needs
from edgewise.runtime.tensors import TensorSpec

_LIBRARIES = ("tensorrt_rtx", "tensorrt")
_SHOWN_MESSAGES = 2
_AMPERE = 80
TRUST = "EDGEWISE_TRUST_ENGINE_CODE"
PHASES = ("host_to_device", "compute", "device_to_host")


def open_engine(bundle: Bundle, options: RunOptions) -> TensorRtEngine:
    """Read the engine back.

    ``engine.settings``: ``model`` names the engine's file; ``library`` is ``tensorrt_rtx`` or ``tensorrt``; ``sm`` the compute
    capability that it is for (10 · major + minor), or a list of them.

    Raises:
        RunError: other settings, no GPU or driver, a GPU of another compute capability, another version of the library,
            an engine that is not built yet, cut, or larger than the GPU's free memory.
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
    if not _runs_on(gpu.sm, built_for, settings.get("hardware_compatible")):
        wanted = " or ".join(f"SM {sm}" for sm in built_for)
        raise _unusable(
            str(model),
            f"{gpu.name} with SM {gpu.sm}",
            wanted,
            f"Build it again with the device's profile: {_rebuild(bundle)}",
        )
    module = _import(library)
    _check_version(module, settings, str(model), bundle)
    if (size := model.stat().st_size) > (free := gpu.free_bytes()):
        raise _unusable(
            str(model), f"an engine of {size} bytes, and {free} bytes free on {gpu.name}", "room for its weights",
            "End what else uses the GPU, quantize the network, or take a GPU with more memory",
        )  # fmt: skip
    return TensorRtEngine(model.read_bytes(), str(model), bundle, module, gpu, options)


def _runs_on(sm: int, built_for: list[Any], compatible: Any) -> bool:
    """Ampere-plus engines run on SM80 and later."""
    return sm in built_for or (compatible == "ampere_plus" and sm >= _AMPERE)


def _check_version(module: Any, settings: dict[str, Any], where: str, bundle: Bundle) -> None:
    """An engine opens in the version that built it alone, unless it was built compatible with later ones."""
    built, here = str(settings.get("version") or ""), str(module.__version__)
    if built and built != here and not settings.get("version_compatible"):
        raise _unusable(
            where,
            f"{module.__name__} {here} here",
            f"{built}, which built the engine",
            f"Build it again: {_rebuild(bundle)}",
        )


def host_code_allowed(bundle: Bundle, where: str) -> bool:
    """Whether the engine may bring code: a version-compatible one carries a runtime of the TensorRT that built it.

    Raises:
        RunError: it does, and nobody said that it may run in this process.
    """
    if not bundle.manifest["engine"].get("settings", {}).get("version_compatible"):
        return False
    if os.environ.get(TRUST) != "1":
        raise _unusable(
            where, "a version-compatible engine, which carries code that runs in the process", f"{TRUST}=1 in the environment",
            "Set it for engines that you trust, or build without version_compatible",
        )  # fmt: skip
    return True


def _rebuild(bundle: Bundle) -> str:
    """The command, where the bundle holds the graph that its engine was built from."""
    graph = bundle.manifest["engine"].get("settings", {}).get("onnx")
    source = bundle.path / graph if isinstance(graph, str) else "model.onnx"
    return f"edgewise build {source} --target tensorrt --device PROFILE -o NEW.edge"


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

    Arrays go through page-locked memory; tensors on the GPU are read and left where they are. From the second run with the
    same shapes and memory on, the work is launched as a CUDA graph.

    Args:
        plan: the serialized engine.
        where: its file, for messages.
        bundle: names its inputs and outputs.
        library: the module ``tensorrt_rtx`` or ``tensorrt``.
        gpu: where it runs.
        options: with ``per_layer`` TensorRT's profiler is attached, which needs the layers one by one: no graphs then.
    """

    def __init__(self, plan: bytes, where: str, bundle: Bundle, library: Any, gpu: Gpu, options: RunOptions) -> None:
        self._where, self._library, self._gpu = where, library, gpu
        self._log = _make_log(library)
        # The runtime and the engine must outlive the context.
        self._runtime = library.Runtime(self._log)
        if (dla_core := bundle.manifest["engine"].get("settings", {}).get("dla_core")) is not None:
            self._runtime.DLA_core = dla_core
        if host_code_allowed(bundle, where):
            self._runtime.engine_host_code_allowed = True
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        self._graphs = LaunchedAgain(gpu, enabled=not options.per_layer)
        self._context: Any = self._make_context(options.per_layer) if self._engine else None
        if self._context is None:
            raise _unusable(
                where,
                self._said(),
                f"an engine of {library.__name__} {library.__version__}",
                "Build it again with this version",
            )
        self._inputs = [spec.name for spec in bundle.inputs]
        self._outputs = [spec.name for spec in bundle.outputs]
        self._marked: list[str] = bundle.manifest["engine"].get("settings", {}).get("marked") or []
        self._check_tensors([*bundle.inputs, *bundle.outputs])
        self._memory: dict[str, GpuBuffer] = {}
        self._pinned: dict[str, np.ndarray] = {}
        self._profile = 0
        self._marks = [gpu.event() for _ in range(len(PHASES) + 1)]
        self._phases: dict[str, list[float]] = {}
        self._operators = {
            layer.get("name"): layer.get("op", "") for layer in bundle.manifest["engine"].get("layers", [])
        }
        self._times: dict[str, list[float]] = {}
        if options.per_layer:
            self._profiler = _make_profiler(library, lambda name, ms: self._times.setdefault(name, []).append(ms))
            self._context.profiler = self._profiler

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Copy in, run, copy out, wait."""
        self._set_shapes({name: array.shape for name, array in inputs.items()})
        self._gpu.mark(self._marks[0])
        for name in self._inputs:
            staged = self._staged(name, inputs[name].shape, inputs[name].dtype)
            staged[...] = inputs[name]
            self._gpu.upload(staged, self._place(name, staged.nbytes))
        self._gpu.mark(self._marks[1])
        outputs = {name: self._staged(name, *self._output(name)) for name in self._outputs}
        for name, array in outputs.items():
            self._place(name, array.nbytes)
        self._execute(
            {name: self._memory[name].address for name in [*self._inputs, *self._outputs]} | self._marked_addresses()
        )
        self._gpu.mark(self._marks[2])
        for name, array in outputs.items():
            self._gpu.download(self._memory[name], array)
        self._gpu.mark(self._marks[3])
        self._gpu.wait()
        for phase, first, second in zip(PHASES, self._marks, self._marks[1:], strict=False):
            self._phases.setdefault(phase, []).append(self._gpu.between_ms(first, second))
        return {name: array.copy() for name, array in outputs.items()}

    def run_tensors(self, inputs: Mapping[str, DeviceTensor]) -> dict[str, DeviceTensor]:
        """Run on tensors that lie on the GPU, or on the processor (those are copied in); results stay on the GPU.

        Each result has memory of its own, which lives as long as somebody holds it.

        Raises:
            RunError: a tensor of another GPU, or what :meth:`run` raises.
        """
        self._set_shapes({name: tensor.shape for name, tensor in inputs.items()})
        addresses = {name: self._on_gpu(name, inputs[name]) for name in self._inputs}
        results = {}
        for name in self._outputs:
            shape, dtype = self._output(name)
            memory = self._gpu.buffer(int(np.prod(shape)) * dtype.itemsize)
            results[name] = DeviceTensor(memory.address, shape, dtype, (CUDA, 0), memory)
            addresses[name] = memory.address
        self._execute(addresses | self._marked_addresses())
        self._gpu.wait()
        return results

    def inner_names(self) -> list[str]:
        """The tensors that were marked when the engine was built (``build.options.marked_tensors``)."""
        return list(self._marked)

    def inner(self, inputs: dict[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
        """Run, and copy these marked tensors out; bfloat16 comes as float32, which holds the same numbers."""
        self.run(inputs)
        made = {}
        for name in names:
            shape, dtype = self._output(name)
            made[name] = np.empty(shape, dtype)
            self._gpu.download(self._memory[name], made[name])
        self._gpu.wait()
        return {name: _widened(array) if self._is_bfloat16(name) else array for name, array in made.items()}

    @property
    def stream(self) -> int:
        """The CUDA stream that reads the inputs."""
        return self._gpu.stream

    def layer_times(self) -> list[LayerTime]:
        """From TensorRT's profiler; a layer is what TensorRT fused into one."""
        return [
            LayerTime(name, self._operators.get(name, ""), "gpu", statistics.median(times), {"runs": len(times)})
            for name, times in self._times.items()
        ]

    def phase_times(self) -> dict[str, float]:
        """Median milliseconds of copying in, computing and copying out in the runs on arrays so far, by the GPU's clock."""
        return {phase: statistics.median(times) for phase, times in self._phases.items()}

    def facts(self) -> dict[str, str]:
        """Library, version, unit, the GPU's name, its memory that the engine takes, and whether CUDA graphs are launched."""
        version = str(self._library.__version__)
        return {
            "library": self._library.__name__,
            "version": version,
            "unit": "gpu",
            "gpu": self._gpu.name,
            "sm": str(self._gpu.sm),
            "device_memory_bytes": str(
                self._engine.device_memory_size_v2 + sum(memory.size for memory in self._memory.values())
            ),
            "cuda_graphs": self._graphs.state,
        }

    def _make_context(self, per_layer: bool) -> Any:
        """TensorRT for RTX captures graphs by itself, and knows when a kernel was compiled anew; TensorRT leaves it to us."""
        if (
            per_layer
            or not hasattr(self._engine, "create_runtime_config")
            or not hasattr(self._library, "CudaGraphStrategy")
        ):
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        config.cuda_graph_strategy = self._library.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self._graphs.leave_to("TensorRT for RTX")
        return self._engine.create_execution_context(config)

    def _set_shapes(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Shapes, in the first of the engine's profiles that has room for them."""
        profile = self._fitting(shapes)
        if profile != self._profile:
            if not self._context.set_optimization_profile_async(profile, self._gpu.stream):
                raise _unusable(self._where, self._said(), "a profile to switch to", "See the message")
            self._gpu.wait()
            self._profile = profile
        for name in self._inputs:
            if not self._context.set_input_shape(name, shapes[name]):
                raise _unusable(
                    f"{self._where}, input {name!r}", f"shape {list(shapes[name])}; {self._said()}",
                    "a shape within the engine's optimization profile", "Build it again for this shape",
                )  # fmt: skip

    def _fitting(self, shapes: dict[str, tuple[int, ...]]) -> int:
        dynamic = [name for name in self._inputs if any(dim < 0 for dim in self._engine.get_tensor_shape(name))]
        if not dynamic:
            return self._profile
        count = self._engine.num_optimization_profiles
        ranges = [{name: self._range(name, index) for name in dynamic} for index in range(count)]
        for index, limits in enumerate(ranges):
            if all(_within(shapes[name], *limits[name]) for name in dynamic):
                return index
        name = next(name for name in dynamic if not _within(shapes[name], *ranges[0][name]))
        told = " or ".join(f"{list(limits[name][0])} to {list(limits[name][1])}" for limits in ranges)
        raise _unusable(
            f"{self._where}, input {name!r}", f"shape {list(shapes[name])}", f"a shape within the engine's profile: {told}",
            "Build it again with build.options.profiles for this shape",
        )  # fmt: skip

    def _range(self, name: str, profile: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        least, _, most = self._engine.get_tensor_profile_shape(name, profile)
        return tuple(least), tuple(most)

    def _execute(self, addresses: dict[str, int]) -> None:
        for name, address in addresses.items():
            self._context.set_tensor_address(name, address)
        shapes = tuple(tuple(self._context.get_tensor_shape(name)) for name in addresses)
        if not self._graphs.run((self._profile, shapes, tuple(addresses.values())), self._enqueue):
            raise _unusable(self._where, self._said(), "a run without errors", "See the message")

    def _enqueue(self) -> bool:
        return bool(self._context.execute_async_v3(self._gpu.stream))

    def _on_gpu(self, name: str, tensor: DeviceTensor) -> int:
        if tensor.device == (CUDA, 0):
            return tensor.address
        if tensor.device[0] != CPU:
            raise _unusable(
                f"{self._where}, input {name!r}",
                f"a tensor on DLPack device {tensor.device}",
                "the processor or GPU 0",
                "Move it there",
            )
        memory = self._place(name, tensor.nbytes)
        self._gpu.upload_from(tensor.address, tensor.nbytes, memory)
        return memory.address

    def _check_tensors(self, specs: list[TensorSpec]) -> None:
        """The engine reads and writes plain memory: another dtype than the manifest's would be garbage."""
        every = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        names = [name for name in every if name not in self._marked]
        have = {name: np.dtype(self._library.nptype(self._engine.get_tensor_dtype(name))).name for name in names}
        want = {spec.name: spec.dtype for spec in specs}
        if have != want:
            raise _unusable(self._where, f"the tensors {have}", f"those of the manifest: {want}", "Build it again")

    def _output(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        shape = tuple(self._context.get_tensor_shape(name))
        if any(dim < 0 for dim in shape):
            raise _unusable(
                f"{self._where}, output {name!r}", f"shape {list(shape)}, which depends on the data", "a shape that follows from the inputs'",
                "Export the network without such an output",
            )  # fmt: skip
        short = name in self._marked and self._is_bfloat16(name)  # numpy has no such type
        return shape, np.dtype(np.uint16 if short else self._library.nptype(self._engine.get_tensor_dtype(name)))

    def _is_bfloat16(self, name: str) -> bool:
        return str(self._engine.get_tensor_dtype(name)).endswith("BF16")

    def _marked_addresses(self) -> dict[str, int]:
        """Memory for the marked tensors, which every run writes."""
        sizes = {name: self._output(name) for name in self._marked}
        return {
            name: self._place(name, int(np.prod(shape)) * dtype.itemsize).address
            for name, (shape, dtype) in sizes.items()
        }

    def _staged(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """A page-locked array, kept from run to run while the shape stays."""
        staged = self._pinned.get(name)
        if staged is None or staged.shape != shape:
            staged = self._pinned[name] = self._gpu.pinned(shape, dtype)
        return staged

    def _place(self, name: str, size: int) -> GpuBuffer:
        memory = self._memory.get(name)
        if memory is None or memory.size < size:
            memory = self._memory[name] = self._gpu.buffer(size)
        return memory

    def _said(self) -> str:
        return "; ".join(self._log.errors[-_SHOWN_MESSAGES:]) or "a refusal without a reason"


def _widened(array: np.ndarray) -> np.ndarray:
    """bfloat16 is the upper half of a float32."""
    return (array.astype(np.uint32) << 16).view(np.float32)


def _within(shape: tuple[int, ...], least: tuple[int, ...], most: tuple[int, ...]) -> bool:
    return len(shape) == len(least) and all(
        low <= size <= high for low, size, high in zip(least, shape, most, strict=True)
    )


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
