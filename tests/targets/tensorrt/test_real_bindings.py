"""What the build script and the engine use of TensorRT, against NVIDIA's own Python bindings (tensorrt-cu13-bindings).

The bindings install anywhere; the libraries below them do not. So these are loaded over empty libraries with the symbols that they
want: nothing can be built, but every class, enum, method and signature is the real one, and a call that does not fit them fails.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

SYMBOLS = (
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL", "getBuilderPluginRegistry",
    "getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins",
)  # fmt: skip
LIBRARIES = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser")
# What the script and the runtime's engine use: class or enum, and member with the words its signature must have.
USED = {
    "Builder": {"create_network": "flags", "create_builder_config": "", "create_optimization_profile": "",
                "build_serialized_network": "network config", "num_DLA_cores": ""},
    "IBuilderConfig": {"set_flag": "flag BuilderFlag", "clear_flag": "flag BuilderFlag", "profiling_verbosity": "",
                       "set_memory_pool_limit": "pool pool_size", "default_device_type": "", "DLA_core": "",
                       "add_optimization_profile": "profile", "create_timing_cache": "", "get_timing_cache": "",
                       "set_timing_cache": "cache ignore_mismatch", "hardware_compatibility_level": ""},
    "IOptimizationProfile": {"set_shape": "input min opt max"},
    "OnnxParser": {"parse": "model", "num_errors": "", "get_error": "index", "set_flag": "flag OnnxParserFlag"},
    "ParserError": {"desc": "", "node": "", "node_name": "", "node_operator": ""},
    "Runtime": {"deserialize_cuda_engine": "serialized_engine", "DLA_core": "", "engine_host_code_allowed": ""},
    "ICudaEngine": {"create_engine_inspector": "", "create_execution_context": "", "num_io_tensors": "", "get_tensor_name": "index",
                    "get_tensor_dtype": "name", "get_tensor_mode": "name", "get_tensor_profile_shape": "name profile_index",
                    "num_optimization_profiles": "", "device_memory_size_v2": ""},
    "EngineInspector": {"get_engine_information": "format LayerInformationFormat"},
    "IExecutionContext": {"set_input_shape": "name shape", "get_tensor_shape": "name", "set_tensor_address": "name memory",
                          "execute_async_v3": "stream_handle", "profiler": "", "set_optimization_profile_async": "profile_index stream_handle"},
    "IProfiler": {"report_layer_time": "layer_name ms"},
    "BuilderFlag": {"TF32": "", "GPU_FALLBACK": "", "SPARSE_WEIGHTS": "", "VERSION_COMPATIBLE": ""},
    "HardwareCompatibilityLevel": {"AMPERE_PLUS": "", "SAME_COMPUTE_CAPABILITY": ""},
    "MemoryPoolType": {"WORKSPACE": ""}, "DeviceType": {"DLA": ""}, "ProfilingVerbosity": {"DETAILED": ""},
    "LayerInformationFormat": {"JSON": ""}, "ILogger": {"log": "severity msg", "Severity": ""}, "Logger": {"WARNING": ""},
}  # fmt: skip

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler for the empty libraries")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the real bindings say of the members, asked in a process of its own: an empty library must not stay loaded in this one."""
    if importlib.util.find_spec("tensorrt_bindings") is None:
        pytest.skip("tensorrt-cu13-bindings is not installed")
    folder = tmp_path_factory.mktemp("empty")
    (folder / "empty.c").write_text("\n".join(f"void *{name}(void) {{ return 0; }}" for name in SYMBOLS))
    from importlib.metadata import version

    major = version("tensorrt-cu13-bindings").split(".", maxsplit=1)[0]
    for name in LIBRARIES:
        file = f"{name}.so.{major}"
        subprocess.run(
            ["cc", "-shared", "-fPIC", f"-Wl,-soname,{file}", "-o", folder / file, folder / "empty.c"], check=True
        )
    program = (
        "import json, sys, tensorrt_bindings as trt\n"
        "ask = json.load(sys.stdin)\n"
        "say = lambda owner, name: str(getattr(getattr(owner, name), '__doc__', '') or ' ') if hasattr(owner, name) else ''\n"
        "print(json.dumps({c: {m: say(getattr(trt, c, None), m) for m in ms} for c, ms in ask.items()}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(USED), capture_output=True, text=True, check=True,
        env=os.environ | {"LD_LIBRARY_PATH": str(folder)},
    )  # fmt: skip
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("owner", sorted(USED))
def test_what_is_used_is_there_with_its_signature(told: dict[str, Any], owner: str) -> None:
    for member, words in USED[owner].items():
        said = told[owner][member]
        assert said, f"tensorrt has no {owner}.{member}"
        assert all(word in said for word in words.split()), f"{owner}.{member}: {said.splitlines()[0]}"
