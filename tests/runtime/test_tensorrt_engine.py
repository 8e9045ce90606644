"""The engine for TensorRT without a GPU: a driver compiled for the test, whose memory is ours, under a stand-in for TensorRT."""

from __future__ import annotations

import ctypes
import gc
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from edgewise.runtime import cuda
from edgewise.runtime.bundle import save_reference
from edgewise.runtime.cuda import Gpu
from edgewise.runtime.dlpack import DeviceTensor
from edgewise.runtime.engines import tensorrt
from edgewise.runtime.errors import MissingExtraError, RunError
from edgewise.runtime.model import load
from edgewise.runtime.profile import worker
from edgewise.runtime.profile.result import make_profile

# The driver API by its published signatures; "device" memory is the heap, and `held` counts what is not given back.
DRIVER = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
typedef int CUresult; typedef int CUdevice; typedef struct context *CUcontext; typedef struct stream *CUstream;
typedef unsigned long long CUdeviceptr;
int held = 0, gpus = 1, failing = 0, context_made = 0;
static struct stream { int waited; } the_stream;
static struct context { int dummy; } the_context;
CUresult cuInit(unsigned flags) { return flags ? 1 : 0; }
CUresult cuDeviceGetCount(int *count) { *count = gpus; return 0; }
CUresult cuDeviceGet(CUdevice *device, int ordinal) { *device = 40 + ordinal; return 0; }
CUresult cuDeviceGetName(char *name, int len, CUdevice device) { if (device != 40) return 101; strncpy(name, "Test GPU", len); return 0; }
CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
  if (device != 40) return 101;
  *value = attribute == 75 ? 8 : attribute == 76 ? 9 : -1; return 0; }
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) { held++; *context = &the_context; return device != 40; }
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) { held--; return device != 40; }
CUresult cuCtxSetCurrent(CUcontext context) { context_made = 1; return context != &the_context; }
CUresult cuStreamCreate(CUstream *stream, unsigned flags) { held++; *stream = &the_stream; return 0; }
CUresult cuStreamDestroy_v2(CUstream stream) { held--; return stream != &the_stream; }
CUresult cuStreamSynchronize(CUstream stream) { if (failing) return 700; return stream != &the_stream; }
CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t size) {
  if (size > (1ull << 40)) return 2;
  if (size == 0) return 1;
  held++; *address = (uintptr_t)malloc(size); return 0; }
CUresult cuMemFree_v2(CUdeviceptr address) { held--; free((void *)(uintptr_t)address); return 0; }
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, CUstream stream) {
  memcpy((void *)(uintptr_t)to, from, size); return stream != &the_stream; }
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, CUstream stream) {
  memcpy(to, (void *)(uintptr_t)from, size); return stream != &the_stream; }
int graphs = 0, launched = 0, marks = 0, capturing = 0, uncapturable = 0; size_t room = 1 << 20;
CUresult cuMemHostAlloc(void **address, size_t size, unsigned flags) { if (flags) return 1; held++; *address = malloc(size); return 0; }
CUresult cuMemFreeHost(void *address) { held--; free(address); return 0; }
CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total) { *free_bytes = room; *total = 2 * room; return 0; }
struct event { int at; };
CUresult cuEventCreate(struct event **event, unsigned flags) { if (flags) return 1; held++; *event = malloc(sizeof **event); return 0; }
CUresult cuEventDestroy_v2(struct event *event) { held--; free(event); return 0; }
CUresult cuEventRecord(struct event *event, CUstream stream) { event->at = ++marks; return stream != &the_stream; }
CUresult cuEventElapsedTime(float *ms, struct event *first, struct event *second) { *ms = 0.5f * (second->at - first->at); return 0; }
typedef struct graph { int dummy; } *CUgraph;
CUresult cuStreamBeginCapture_v2(CUstream stream, int mode) { capturing = 1; return stream != &the_stream || mode != 1; }
CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
  capturing = 0; if (uncapturable) return 901; held++; *graph = malloc(8); return stream != &the_stream; }
CUresult cuGraphInstantiateWithFlags(CUgraph *made, CUgraph graph, unsigned long long flags) {
  if (flags || !graph) return 1; held++; graphs++; *made = malloc(8); return 0; }
CUresult cuGraphDestroy(CUgraph graph) { held--; free(graph); return 0; }
CUresult cuGraphExecDestroy(CUgraph graph) { held--; free(graph); return 0; }
static void (*replay)(void) = 0;
void on_launch(void (*work)(void)) { replay = work; }
CUresult cuGraphLaunch(CUgraph graph, CUstream stream) { launched++; if (replay) replay(); return stream != &the_stream || !graph; }
CUresult cuGetErrorString(CUresult status, const char **text) {
  *text = status == 2 ? "out of memory" : status == 901 ? "operation failed due to a previous error during capture" : status == 700 ? "an illegal memory access was encountered" : 0; return !*text; }
"""
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler for the stand-in driver")


@pytest.fixture(scope="session")
def compiled(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(DRIVER)
    library = folder / "libcuda_for_test.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, folder / "driver.c"], check=True)
    return library


@pytest.fixture
def driver(compiled, monkeypatch) -> ctypes.CDLL:
    library = ctypes.CDLL(str(compiled))
    for name, value in (("held", 0), ("gpus", 1), ("failing", 0), ("graphs", 0), ("launched", 0), ("uncapturable", 0)):
        ctypes.c_int.in_dll(library, name).value = value
    ctypes.c_size_t.in_dll(library, "room").value = 1 << 20
    monkeypatch.setattr(cuda, "_load_library", lambda: library)
    return library


@pytest.fixture(scope="module", autouse=True)
def what_is_here_is_set_apart():
    """What other tests imported is a million objects: the collections below would look at each, half a second every time."""
    gc.collect()
    gc.freeze()


def held(library: ctypes.CDLL) -> int:
    gc.collect()
    return ctypes.c_int.in_dll(library, "held").value


@needs_compiler
def test_the_gpu_is_described_and_given_back(driver):
    gpu = Gpu()
    assert (gpu.name, gpu.sm) == ("Test GPU", 89)
    assert gpu.stream != 0
    assert held(driver) == 2
    del gpu
    assert held(driver) == 0


@needs_compiler
def test_memory_goes_there_and_back_and_outlives_its_gpu(driver):
    gpu = Gpu()
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    memory = gpu.buffer(array.nbytes)
    empty = gpu.buffer(0)
    assert empty.size == 1
    back = np.zeros_like(array)
    gpu.upload(array, memory)
    gpu.download(memory, back)
    gpu.wait()
    np.testing.assert_array_equal(array, back)
    assert held(driver) == 4
    del gpu
    assert held(driver) == 4
    del memory, empty
    assert held(driver) == 0


@needs_compiler
def test_what_the_driver_refuses(driver):
    gpu = Gpu()
    with pytest.raises(RunError, match=r"\(cuMemAlloc_v2\): found out of memory \(2\)"):
        gpu.buffer(1 << 41)
    ctypes.c_int.in_dll(driver, "failing").value = 1
    with pytest.raises(RunError, match=r"illegal memory access was encountered \(700\)"):
        gpu.wait()
    ctypes.c_int.in_dll(driver, "gpus").value = 0
    with pytest.raises(RunError, match="found a driver, but no GPU"):
        Gpu()


class FakeContext:
    """y = 2 x, n = number of elements; computed in the "device" memory that it is told of."""

    def __init__(self, log):
        self.log, self.shapes, self.addresses, self.profiler = log, {}, {}, None

    def set_input_shape(self, name, shape):
        if shape[0] == 3:
            self.log.log("error", "shape\n  out of sorts")
            return False
        self.shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name):
        return self.shapes["x"] if name == "y" else (1,)

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

    def set_optimization_profile_async(self, index, stream):
        self.profile = index
        return bool(stream)

    def execute_async_v3(self, stream):
        assert stream
        self.enqueued = getattr(self, "enqueued", 0) + 1
        count = int(np.prod(self.shapes["x"]))

        def view(name, kind, size):
            return np.ctypeslib.as_array(ctypes.cast(self.addresses[name], ctypes.POINTER(kind)), (size,))

        view("y", ctypes.c_float, count)[:] = 2 * view("x", ctypes.c_float, count)
        view("n", ctypes.c_int64, 1)[0] = count
        if self.profiler:
            self.profiler.report_layer_time("double", 0.25)
        return True


class FakeEngine:
    """Up to 4 rows in its first profile, up to 16 in its second."""

    names: tuple[str, ...] = ("x", "y", "n")
    num_optimization_profiles, device_memory_size_v2 = 2, 1000

    def __init__(self, log):
        self.log = log
        self.num_io_tensors = len(self.names)

    def create_execution_context(self):
        self.context = FakeContext(self.log)
        return self.context

    def get_tensor_shape(self, name):
        return (1,) if name == "n" else (-1, 3)

    def get_tensor_profile_shape(self, name, profile):
        return [(0, 3), (1, 3), (4 if profile == 0 else 16, 3)]

    def get_tensor_name(self, index):
        return self.names[index]

    def get_tensor_dtype(self, name):
        return "int64" if name == "n" else "float32"


class FakeRuntime:
    DLA_core = -1

    def __init__(self, log):
        self.log = log

    def deserialize_cuda_engine(self, plan):
        if plan != b"a plan":
            self.log.log("info", "not shown")
            self.log.log("error", "magic tag\n does not match")
            return None
        return FakeEngine(self.log)


class FakeLogger:
    Severity = types.SimpleNamespace(INTERNAL_ERROR="internal error", ERROR="error")


@pytest.fixture
def library(monkeypatch) -> types.ModuleType:
    module = types.ModuleType("tensorrt_rtx")
    module.__version__ = "1.7"
    module.ILogger, module.Runtime, module.nptype = FakeLogger, FakeRuntime, np.dtype
    module.IProfiler = type("IProfiler", (), {})
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)
    return module


@pytest.fixture
def engine_bundle(make_bundle):
    def make(plan: bytes = b"a plan", name: str = "model.engine", **changes):
        from edgewise.runtime.bundle import open_bundle, seal

        settings = {"library": "tensorrt_rtx", "model": name, "sm": 89} | changes
        layers = [{"name": "double", "op": "ElementWise", "precision": "float32", "unit": "gpu"}]
        path = make_bundle(
            engine={"kind": "tensorrt", "settings": settings, "layers": layers},
            inputs=[{"name": "x", "dtype": "float32", "shape": ["N", 3]}],
            outputs=[
                {"name": "y", "dtype": "float32", "shape": ["N", 3]},
                {"name": "n", "dtype": "int64", "shape": [1]},
            ],
        )
        manifest = open_bundle(path).manifest
        (path / name).write_bytes(plan)
        seal(path, manifest)
        return path

    return make


@needs_compiler
def test_it_runs_and_grows(driver, library, engine_bundle):
    model = load(engine_bundle(), per_layer=True)
    for rows in (2, 4, 1, 0, 2, 2):
        x = np.random.default_rng(rows).standard_normal((rows, 3)).astype(np.float32)
        got = model.run({"x": x})
        np.testing.assert_array_equal(got["y"], 2 * x)
        assert got["n"] == 3 * rows
    (layer,) = model.layer_times()
    assert (layer.name, layer.op, layer.unit, layer.median_ms, layer.detail["runs"]) == (
        "double",
        "ElementWise",
        "gpu",
        0.25,
        6,
    )
    assert model.facts() == {
        "library": "tensorrt_rtx", "version": "1.7", "unit": "gpu", "gpu": "Test GPU", "sm": "89",
        "device_memory_bytes": str(1000 + 2 * 4 * 3 * 4 + 8), "cuda_graphs": "off",
    }  # fmt: skip
    # Two buffers grew from 2 rows to 4: the smaller ones were given back. Each tensor has a page-locked array; four events.
    assert held(driver) == 2 + 3 + 3 + 4
    del model, layer
    assert held(driver) == 0


@needs_compiler
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"library": "openvino"}, r"found library 'openvino'; expected one of tensorrt_rtx, tensorrt"),
        ({"library": ["tensorrt"]}, r"found library \['tensorrt'\]"),
        ({"sm": "89"}, "found sm '89'"),
        ({"sm": None}, "found sm None"),
        ({"sm": 87}, r"found Test GPU with SM 89; expected SM 87"),
        ({"sm": [80, 86]}, "expected SM 80 or SM 86"),
        ({"name": "model.onnx"}, "yet to be built.*Run the bundle's build script on the device"),
        ({"plan": b"another"}, r"found magic tag does not match; expected an engine of tensorrt_rtx 1\.7"),
        (
            {"plan": b"a", "version": "1.6"},
            r"found tensorrt_rtx 1\.7 here; expected 1\.6, which built.*edgewise build .*model.onnx",
        ),
        ({"plan": b"x" * ((1 << 20) + 1)}, r"found an engine of 1048577 bytes, and 1048576 bytes free on Test GPU"),
    ],
)
def test_engines_that_do_not_open(driver, library, engine_bundle, options, says):
    with pytest.raises(RunError, match=says):
        load(engine_bundle(**options))
    assert held(driver) == 0


@needs_compiler
def test_tensors_that_are_not_the_manifests(driver, library, engine_bundle, monkeypatch):
    path = engine_bundle()
    monkeypatch.setattr(FakeEngine, "names", ("x", "y"))
    with pytest.raises(
        RunError, match=r"found the tensors \{'x': 'float32', 'y': 'float32'\}; expected those of the manifest"
    ):
        load(path)
    monkeypatch.setattr(FakeEngine, "names", ("x", "y", "n"))
    monkeypatch.setattr(FakeEngine, "get_tensor_dtype", lambda self, name: "float16")
    with pytest.raises(RunError, match="'x': 'float16'"):
        load(path)


@needs_compiler
def test_shapes_and_runs_that_are_refused(driver, library, engine_bundle, monkeypatch):
    model = load(engine_bundle())
    with pytest.raises(
        RunError,
        match=r"input 'x'\): found shape \[17, 3\]; expected a shape within the engine's profile: \[0, 3\] to \[4, 3\] or",
    ):
        model.run({"x": np.ones((17, 3), np.float32)})
    with pytest.raises(RunError, match=r"input 'x'\): found shape \[3, 3\]; shape out of sorts"):
        model.run({"x": np.ones((3, 3), np.float32)})
    monkeypatch.setattr(FakeContext, "execute_async_v3", lambda self, stream: False)
    with pytest.raises(RunError, match="expected a run without errors"):
        model.run({"x": np.ones((1, 3), np.float32)})
    monkeypatch.setattr(FakeContext, "get_tensor_shape", lambda self, name: (-1, 3))
    with pytest.raises(RunError, match=r"output 'y'\): found shape \[-1, 3\], which depends on the data"):
        model.run({"x": np.ones((1, 3), np.float32)})


@needs_compiler
def test_an_engine_with_code_of_its_own_is_opened_where_it_is_trusted(driver, library, engine_bundle, monkeypatch):
    path, allowed = engine_bundle(version_compatible=True), []
    monkeypatch.delenv("EDGEWISE_TRUST_ENGINE_CODE", raising=False)
    monkeypatch.setattr(
        FakeRuntime, "engine_host_code_allowed", property(lambda _: bool(allowed), lambda _, is_so: allowed.append(is_so)), raising=False
    )  # fmt: skip
    with pytest.raises(RunError, match=r"carries code that runs in the process; expected EDGEWISE_TRUST_ENGINE_CODE=1"):
        load(path)
    assert not allowed
    monkeypatch.setenv("EDGEWISE_TRUST_ENGINE_CODE", "1")
    assert load(path).run({"x": np.ones((1, 3), np.float32)})["n"] == 3 and allowed == [True]


@needs_compiler
def test_the_dla_core_is_set(driver, library, engine_bundle, monkeypatch):
    seen = []
    monkeypatch.setattr(
        FakeRuntime, "DLA_core", property(lambda self: -1, lambda self, core: seen.append(core)), raising=True
    )
    load(engine_bundle(dla_core=1))
    load(engine_bundle())
    assert seen == [1]


@needs_compiler
def test_libraries_that_are_not_installed(driver, engine_bundle, monkeypatch):
    import importlib.util

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "tensorrt" in name else find_spec(name))
    for name in ("tensorrt_rtx", "tensorrt"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"edgewise\[tensorrt\]"):
        load(engine_bundle())
    with pytest.raises(RunError, match=r"found no package tensorrt.*JetPack"):
        load(engine_bundle(library="tensorrt"))


def test_no_driver(engine_bundle, monkeypatch):
    monkeypatch.setattr(cuda, "_LIBRARIES", {sys.platform: ("no_such_library.so",)})
    with pytest.raises(
        RunError,
        match=r"there is no GPU to run on: found no NVIDIA driver; expected an NVIDIA GPU with its driver\. Run",
    ):
        load(engine_bundle())


def test_the_real_library_says_why_it_refuses():
    """TensorRT for RTX can be asked without a GPU, as far as its refusal."""
    trt = pytest.importorskip("tensorrt_rtx")
    log = tensorrt._make_log(trt)
    assert trt.Runtime(log).deserialize_cuda_engine(b"no engine at all" * 99) is None
    assert "magicTag" in log.errors[0]
    assert "\n" not in log.errors[0]
    seen = []
    tensorrt._make_profiler(trt, lambda name, ms: seen.append((name, ms))).report_layer_time("layer", 1.5)
    assert seen == [("layer", 1.5)]


@pytest.fixture
def replaying(driver, monkeypatch):
    """Launching a graph does what was captured: the stand-in's driver cannot record, so the context's last work is done again."""
    contexts = []
    create = FakeEngine.create_execution_context

    def create_and_keep(self):
        contexts.append(create(self))
        return contexts[-1]

    monkeypatch.setattr(FakeEngine, "create_execution_context", create_and_keep)
    callback = ctypes.CFUNCTYPE(None)(lambda: contexts[-1].execute_async_v3(1))
    driver.on_launch(callback)
    yield contexts
    driver.on_launch(ctypes.CFUNCTYPE(None)())


def number(driver: ctypes.CDLL, name: str) -> int:
    return ctypes.c_int.in_dll(driver, name).value


@needs_compiler
def test_the_second_run_is_captured_and_later_ones_launched(driver, library, engine_bundle, replaying):
    model = load(engine_bundle())
    for seed in range(5):
        x = np.random.default_rng(seed).standard_normal((2, 3)).astype(np.float32)
        np.testing.assert_array_equal(model.run({"x": x})["y"], 2 * x)
    assert (number(driver, "graphs"), number(driver, "launched")) == (1, 4)
    model.run({"x": np.ones((1, 3), np.float32)})
    assert number(driver, "graphs") == 1, "another shape is another graph, from its second run on"
    model.run({"x": np.ones((1, 3), np.float32)})
    assert number(driver, "graphs") == 2 and model.facts()["cuda_graphs"] == "on"
    replaying.clear()
    del model
    assert held(driver) == 0


@needs_compiler
def test_a_stream_that_cannot_be_captured_is_said_and_runs_all_the_same(driver, library, engine_bundle):
    model = load(engine_bundle())
    ctypes.c_int.in_dll(driver, "uncapturable").value = 1
    for _ in range(3):
        assert model.run({"x": np.ones((2, 3), np.float32)})["n"] == 6
    assert model.facts()["cuda_graphs"].startswith("off: operation failed due to a previous error during capture")
    assert number(driver, "launched") == 0


@needs_compiler
def test_rtx_captures_by_itself(driver, library, engine_bundle, monkeypatch):
    config = types.SimpleNamespace()
    library.CudaGraphStrategy = types.SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
    monkeypatch.setattr(FakeEngine, "create_runtime_config", lambda self: config, raising=False)
    monkeypatch.setattr(FakeEngine, "create_execution_context", lambda self, config=None: FakeContext(self.log))
    model = load(engine_bundle())
    for _ in range(3):
        model.run({"x": np.ones((2, 3), np.float32)})
    assert config.cuda_graph_strategy == "whole" and number(driver, "graphs") == 0
    assert model.facts()["cuda_graphs"] == "by TensorRT for RTX"


@needs_compiler
def test_parts_of_a_run_are_timed_apart(driver, library, engine_bundle):
    model = load(engine_bundle())
    model.run({"x": np.ones((2, 3), np.float32)})
    assert model.phase_times() == {"host_to_device": 0.5, "compute": 0.5, "device_to_host": 0.5}


@needs_compiler
def test_a_profile_has_the_parts_of_a_run(driver, library, engine_bundle, tmp_path):
    save_reference(tmp_path / "samples.npz", [{"x": np.ones((2, 3), np.float32)}], [{"y": np.ones((2, 3), np.float32)}])
    order = {"path": engine_bundle(), "function": "", "threads": 0, "runs": 3, "warmup": 0, "min_time_s": 0.0}
    more = {"duration_s": 0.0, "per_layer": False, "samples": str(tmp_path / "samples.npz")}
    profile = make_profile(worker.work(order | more, lambda line: None), 0, "no meter")
    assert profile["phases_ms"] == {"host_to_device": 0.5, "compute": 0.5, "device_to_host": 0.5}


@needs_compiler
def test_the_profile_that_has_room_is_chosen(driver, library, engine_bundle, replaying):
    model = load(engine_bundle())
    for rows, profile in ((4, 0), (9, 1), (2, 0)):
        assert model.run({"x": np.ones((rows, 3), np.float32)})["n"] == 3 * rows
        assert getattr(replaying[-1], "profile", 0) == profile


class OnTheGpu:
    """A tensor of a library without ``from_dlpack``, in the stand-in's device memory."""

    def __init__(self, array: np.ndarray, device: tuple[int, int] = (2, 0)) -> None:
        self._tensor, self.streams = DeviceTensor(array.ctypes.data, array.shape, array.dtype, device, array), []

    def __dlpack_device__(self):
        return self._tensor.device

    def __dlpack__(self, *, stream=None):
        self.streams.append(stream)
        return self._tensor.__dlpack__()


@needs_compiler
def test_tensors_on_the_gpu_are_read_and_left_there(driver, library, engine_bundle, replaying):
    model = load(engine_bundle())
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = OnTheGpu(array)
    first, second = model.run({"x": tensor})["y"], model.run({"x": tensor})["y"]
    assert replaying[-1].addresses["x"] == array.ctypes.data, "no copy"
    assert first.device == (2, 0) and first.address != second.address and all(tensor.streams)
    view = np.ctypeslib.as_array(ctypes.cast(first.address, ctypes.POINTER(ctypes.c_float)), (2, 3))
    np.testing.assert_array_equal(view, 2 * array)
    with pytest.raises(RunError, match=r"a tensor on DLPack device \(2, 1\)"):
        model.run({"x": OnTheGpu(array, (2, 1))})
    with pytest.raises(RunError, match=r"float64\[2, 3\]"):
        model.run({"x": OnTheGpu(array.astype(np.float64))})


@needs_compiler
def test_torch_tensors_of_the_processor_are_taken(driver, library, engine_bundle):
    torch = pytest.importorskip("torch")
    model = load(engine_bundle())
    x = torch.ones(2, 3)
    outputs = model.run({"x": x})
    assert isinstance(outputs["y"], torch.Tensor) and torch.equal(outputs["y"], 2 * x)
    mixed = OnTheGpu(np.ones((2, 3), np.float32))
    assert model.run({"x": mixed})["y"].device == (2, 0), "results stay where the inputs are"


def verified(path: Path, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """``edgewise verify``: its exit code, and what it says in one line."""
    from edgewise.cli.outcome import run

    capfd.readouterr()
    code = run(["verify", str(path)])
    return code, " ".join(capfd.readouterr().err.split())


@needs_compiler
@pytest.mark.parametrize(
    ("options", "rows", "says"),
    [
        ({"version": "1.6"}, 2, "tensorrt_rtx 1.7 here, expected 1.6, which built the engine"),
        ({"sm": 87}, 2, "found Test GPU with SM 89, expected SM 87"),
        ({"plan": b"a pl"}, 2, "found magic tag does not match, expected an engine of tensorrt_rtx 1.7"),
        ({"plan": b"x" * ((1 << 20) + 1)}, 2, "1048576 bytes free on Test GPU"),
        ({}, 17, "expected a shape within the engine's profile: [0, 3] to [4, 3]"),
    ],
)
def test_the_command_line_says_why_an_engine_does_not_run(driver, library, engine_bundle, capfd, options, rows, says):
    from edgewise.runtime.bundle import open_bundle, seal

    path = engine_bundle(**options)
    manifest = open_bundle(path).manifest
    x = np.ones((rows, 3), np.float32)
    save_reference(path / "reference.npz", [{"x": x}], [{"y": 2 * x, "n": np.array([3 * rows])}])
    seal(path, manifest)
    code, text = verified(path, capfd)
    assert code == 2 and says in text and "Traceback" not in text, text


@needs_compiler
def test_the_command_line_refuses_a_cut_engine_file(driver, library, engine_bundle, capfd):
    path = engine_bundle()
    (path / "model.engine").write_bytes(b"a pl")
    code, text = verified(path, capfd)
    assert code == 2 and "model.engine" in text and "Traceback" not in text, text


@pytest.fixture
def telling(library, monkeypatch):
    """The stand-in gives out three marked tensors beside its outputs, one of them in bfloat16."""
    run = FakeContext.execute_async_v3

    def enqueue(self, stream):
        done = run(self, stream)
        count = int(np.prod(self.shapes["x"]))

        def view(name, kind):
            return np.ctypeslib.as_array(ctypes.cast(self.addresses[name], ctypes.POINTER(kind)), (count,))

        x = view("x", ctypes.c_float)
        view("plus", ctypes.c_float)[:] = x + 1
        view("half", ctypes.c_uint16)[:] = x.astype(np.float16).view(np.uint16)
        view("short", ctypes.c_uint16)[:] = x.view(np.uint32) >> 16
        return done

    kinds = {"n": "int64", "half": "float16", "short": "DataType.BF16"}
    monkeypatch.setattr(FakeContext, "execute_async_v3", enqueue)
    monkeypatch.setattr(FakeContext, "get_tensor_shape", lambda self, name: (1,) if name == "n" else self.shapes["x"])
    monkeypatch.setattr(FakeEngine, "names", ("x", "y", "n", "plus", "half", "short"))
    monkeypatch.setattr(FakeEngine, "get_tensor_dtype", lambda self, name: kinds.get(name, "float32"))


@needs_compiler
def test_marked_tensors_are_given_out_when_they_are_asked_for(driver, telling, engine_bundle):
    model = load(engine_bundle(marked=["plus", "half", "short"]))
    assert model.inner_names() == ["plus", "half", "short"]
    for rows in (2, 5, 1):
        x = np.random.default_rng(rows).standard_normal((rows, 3)).astype(np.float32)
        assert set(model.run({"x": x})) == {"y", "n"}
        told = model.inner({"x": x}, ["plus", "half", "short"])
        np.testing.assert_array_equal(told["plus"], x + 1)
        np.testing.assert_array_equal(told["half"], x.astype(np.float16))
        np.testing.assert_array_equal(told["short"], (x.view(np.uint32) & 0xFFFF0000).view(np.float32))
    del model
    assert held(driver) == 0


@needs_compiler
def test_an_engine_with_more_outputs_than_marked_is_refused(driver, telling, engine_bundle):
    with pytest.raises(RunError, match=r"'half': 'float16'.*expected those of the manifest"):
        load(engine_bundle(marked=["plus", "short"]))
