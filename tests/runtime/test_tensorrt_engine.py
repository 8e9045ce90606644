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
from edgewise.runtime.cuda import Gpu
from edgewise.runtime.engines import tensorrt
from edgewise.runtime.errors import MissingExtraError, RunError
from edgewise.runtime.model import load

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
CUresult cuGetErrorString(CUresult status, const char **text) {
  *text = status == 2 ? "out of memory" : status == 700 ? "an illegal memory access was encountered" : 0; return !*text; }
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
    for name, value in (("held", 0), ("gpus", 1), ("failing", 0)):
        ctypes.c_int.in_dll(library, name).value = value
    monkeypatch.setattr(cuda, "_load_library", lambda: library)
    return library


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
        if shape[0] > 4:
            self.log.log("error", "shape\n  out of profile")
            return False
        self.shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name):
        return self.shapes["x"] if name == "y" else (1,)

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

    def execute_async_v3(self, stream):
        assert stream
        count = int(np.prod(self.shapes["x"]))

        def view(name, kind, size):
            return np.ctypeslib.as_array(ctypes.cast(self.addresses[name], ctypes.POINTER(kind)), (size,))

        view("y", ctypes.c_float, count)[:] = 2 * view("x", ctypes.c_float, count)
        view("n", ctypes.c_int64, 1)[0] = count
        if self.profiler:
            self.profiler.report_layer_time("double", 0.25)
        return True


class FakeEngine:
    names: tuple[str, ...] = ("x", "y", "n")

    def __init__(self, log):
        self.log = log
        self.num_io_tensors = len(self.names)

    def create_execution_context(self):
        return FakeContext(self.log)

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
    for rows in (2, 4, 1, 0):
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
        4,
    )
    assert model.facts() == {
        "library": "tensorrt_rtx", "version": "1.7", "unit": "gpu", "gpu": "Test GPU", "sm": "89",
    }  # fmt: skip
    # Two buffers grew from 2 rows to 4: the smaller ones were given back.
    assert held(driver) == 2 + 3
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
    with pytest.raises(RunError, match=r"input 'x'\): found shape \[5, 3\]; shape out of profile"):
        model.run({"x": np.ones((5, 3), np.float32)})
    monkeypatch.setattr(FakeContext, "execute_async_v3", lambda self, stream: False)
    with pytest.raises(RunError, match="expected a run without errors"):
        model.run({"x": np.ones((1, 3), np.float32)})
    monkeypatch.setattr(FakeContext, "get_tensor_shape", lambda self, name: (-1, 3))
    with pytest.raises(RunError, match=r"output 'y'\): found shape \[-1, 3\], which depends on the data"):
        model.run({"x": np.ones((1, 3), np.float32)})


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
