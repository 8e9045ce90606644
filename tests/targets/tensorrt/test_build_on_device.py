"""The script that builds on a Jetson: its logic, against stand-ins for TensorRT 10 and 11 and for trtexec.

The stand-ins say that they are; nothing here has seen a GPU.
"""

from __future__ import annotations

import ast
import hashlib
import json
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgewise.runtime.bundle import open_bundle
from edgewise.targets.errors import TargetError
from edgewise.targets.tensorrt import TARGET
from edgewise.targets.tensorrt import build_on_device as script

ORIN = {"name": "Orin (stand-in)", "sm": 87}


def layer(name: str, dtype: str, kind: str = "Convolution") -> dict[str, Any]:
    return {"Name": name, "LayerType": kind, "Inputs": [{"Name": "x", "Format/Datatype": dtype}], "Outputs": []}


FLOAT16 = json.dumps(
    {"Layers": [layer("conv1", "Channel major FP16 format where channel % 8 == 0"), layer("fc", "Half")]}
)
FLOAT32 = json.dumps({"Layers": [layer("conv1", "Row major linear FP32"), "a layer without detail"]})
INT8 = json.dumps(
    {"Layers": [layer("conv1", "Thirty-two wide channel vectorized row major Int8 format"), layer("fc", "Half")]}
)


class FakeTensorRT:
    """As much of the package tensorrt as the script uses; ``calls`` is what it was asked for."""

    class Flag(int):
        pass

    def __init__(self, version: str = "11.4.0", listing: str = FLOAT16, dla_cores: int = 2, **behaviour: Any) -> None:
        self.__version__, self.listing, self.behaviour = version, listing, behaviour
        self.calls: dict[str, Any] = {"flags": [], "cleared": [], "profile": {}, "parser_flags": []}
        old = int(version.split(".")[0]) < 11
        self.Logger = type("Logger", (), {"WARNING": 2, "__init__": lambda self, severity: None})
        self.NetworkDefinitionCreationFlag = SimpleNamespace(
            **({} if behaviour.get("no_flag") else {"STRONGLY_TYPED": 1})
        )
        self.OnnxParserFlag = SimpleNamespace(NATIVE_INSTANCENORM=0, **({} if old else {"ADJUST_FOR_DLA": 4}))
        self.ProfilingVerbosity = SimpleNamespace(DETAILED="detailed")
        precisions = {"FP16": "FP16", "INT8": "INT8"} if old else {}
        self.BuilderFlag = SimpleNamespace(TF32="TF32", GPU_FALLBACK="GPU_FALLBACK", **precisions)
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        self.DeviceType = SimpleNamespace(DLA="dla")
        self.LayerInformationFormat = SimpleNamespace(JSON="json")
        self.dla_cores = dla_cores

    def Builder(self, logger: Any) -> Any:
        calls = self.calls

        def create_builder_config() -> Any:
            calls["config"] = config = SimpleNamespace(
                set_flag=calls["flags"].append,
                clear_flag=calls["cleared"].append,
                set_memory_pool_limit=lambda pool, size: calls.update({pool: size}),
                add_optimization_profile=lambda profile: calls.update(added=True),
                create_timing_cache=lambda data: calls.update(cache_in=data) or (None if data == b"cut" else "cache"),
                set_timing_cache=lambda cache, ignore_mismatch: calls.update(cache=(cache, ignore_mismatch)),
                get_timing_cache=lambda: SimpleNamespace(serialize=lambda: b"timings"),
            )
            return config

        profile = SimpleNamespace(set_shape=lambda name, *shapes: calls["profile"].update({name: shapes}))
        return SimpleNamespace(
            num_DLA_cores=self.dla_cores,
            create_network=lambda flags: calls.update(network_flags=flags) or "network",
            create_builder_config=create_builder_config,
            create_optimization_profile=lambda: profile,
            build_serialized_network=lambda network, config: None if self.behaviour.get("no_plan") else b"an engine",
        )

    def OnnxParser(self, network: Any, logger: Any) -> Any:
        def error(index: int) -> Any:
            said: dict[str, Any] = {"desc": lambda: "no kernel\n for it", "node": lambda: 3}
            if not self.__version__.startswith("10.0"):
                said |= {"node_name": lambda: "odd", "node_operator": lambda: "Odd"}
            return SimpleNamespace(**said)

        return SimpleNamespace(
            parse=lambda data: not self.behaviour.get("refuses"),
            num_errors=1,
            get_error=error,
            set_flag=self.calls["parser_flags"].append,
        )

    def Runtime(self, logger: Any) -> Any:
        inspector = SimpleNamespace(get_engine_information=lambda form: self.listing)
        engine = SimpleNamespace(create_engine_inspector=lambda: inspector)
        refuses = self.behaviour.get("no_engine")
        self.calls["runtime"] = runtime = SimpleNamespace(engine_host_code_allowed=False)
        hosted = self.behaviour.get("host_code")
        runtime.deserialize_cuda_engine = lambda data: (
            None if refuses or (hosted and not runtime.engine_host_code_allowed) else engine
        )
        return runtime


Kit = Callable[..., Path]


@pytest.fixture
def kit(small_graph: Any, make_bundle: Any, monkeypatch: pytest.MonkeyPatch) -> Kit:
    """A bundle for AGX Orin, and a machine that says that it is one."""
    monkeypatch.setattr(script, "find_gpu", lambda: dict(ORIN))

    def make(**options: Any) -> Path:
        bundle, _ = make_bundle(TARGET, small_graph("dynamic_batch"), device="jetson-agx-orin", options=options)
        path: Path = bundle.path
        return path

    return make


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def call(folder: Path, trt: Any, *arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(script, "import_tensorrt", lambda: trt)
        code = script.main(["--folder", str(folder), *arguments])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


def change(folder: Path, **entries: Any) -> None:
    path = folder / "build_settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.mark.parametrize("version", ["10.3.0", "10.0.1", "11.4.0"])
def test_builds_reads_back_and_makes_the_folder_a_bundle_that_runs(version: str, kit: Kit, run: Any) -> None:
    folder, trt = kit(workspace_bytes=1 << 20), FakeTensorRT(version)
    code, said = run(folder, trt)
    assert code == 0, said
    assert (folder / "model.engine").read_bytes() == b"an engine"
    report = json.loads((folder / "model.engine.json").read_text())
    assert report["tensorrt"] == version and report["gpu"] == ORIN
    assert [entry["precision"] for entry in report["layers"]] == ["FP16", "FP16"]
    assert report["engine_sha256"] == hashlib.sha256(b"an engine").hexdigest()
    assert trt.calls["network_flags"] == 1 << 1 and trt.calls["added"] and trt.calls["cleared"] == ["TF32"]
    assert trt.calls["profile"] == {"x": ([1, 3, 16, 16], [1, 3, 16, 16], [8, 3, 16, 16])}
    assert trt.calls["workspace"] == 1 << 20 and trt.calls["config"].profiling_verbosity == "detailed"
    assert "FP16  Convolution       conv1" in said and "FP16: 2 layers" in said
    engine = open_bundle(folder).manifest["engine"]
    assert engine["settings"]["model"] == "model.engine" and engine["settings"]["engine_built"] is True
    assert engine["settings"]["version"] == version == engine["versions"]["tensorrt"]
    assert {entry["unit"] for entry in engine["layers"]} == {"gpu"}


def test_a_tensorrt_without_the_strong_typing_flag_is_taken_for_one_that_always_is(kit: Kit, run: Any) -> None:
    trt = FakeTensorRT("12.0.0", no_flag=True)
    assert run(kit(), trt)[0] == 0
    assert trt.calls["network_flags"] == 0


def test_dla_in_tensorrt_11_is_strongly_typed(kit: Kit, run: Any) -> None:
    trt = FakeTensorRT("11.4.1")
    assert run(kit(dla_core=1), trt)[0] == 0
    config = trt.calls["config"]
    assert (config.default_device_type, config.DLA_core, trt.calls["flags"]) == ("dla", 1, ["GPU_FALLBACK"])
    assert trt.calls["network_flags"] == 2 and trt.calls["parser_flags"] == [4] and trt.calls["runtime"].DLA_core == 1


def test_dla_in_tensorrt_10_is_weakly_typed_with_precision_flags(kit: Kit, run: Any) -> None:
    trt = FakeTensorRT("10.3.0", listing=INT8)
    folder = kit(dla_core=0, gpu_fallback=False)
    change(folder, quantized=True)
    assert run(folder, trt)[0] == 0
    assert (
        trt.calls["network_flags"] == 0 and trt.calls["flags"] == ["FP16", "INT8"] and trt.calls["parser_flags"] == []
    )


def test_the_timing_cache_is_read_and_written(kit: Kit, run: Any, tmp_path: Path) -> None:
    cache, folder = tmp_path / "timings", kit()
    for expected in (b"", b"timings"):
        trt = FakeTensorRT()
        assert run(folder, trt, "--timing-cache", str(cache))[0] == 0
        assert trt.calls["cache_in"] == expected and trt.calls["cache"] == ("cache", False)
    assert cache.read_bytes() == b"timings"
    cache.write_bytes(b"cut")
    assert run(folder, trt, "--timing-cache", str(cache))[0] == 0
    assert trt.calls["cache_in"] == b"" and cache.read_bytes() == b"timings", "another one is begun"


def test_the_timing_cache_of_the_recipe(kit: Kit, run: Any, tmp_path: Path) -> None:
    cache = tmp_path / "new" / "timings"
    assert run(kit(timing_cache=str(cache)), FakeTensorRT())[0] == 0
    assert cache.read_bytes() == b"timings"
    code, said = run(kit(timing_cache=f"{cache}/beneath"), FakeTensorRT())
    assert code == 0 and "the timings were not kept" in said


@pytest.mark.parametrize(
    ("asked", "listing"),
    [("float16", FLOAT32), ("int8", FLOAT16), ("float8", FLOAT16), ("bfloat16", "{}"), ("float32", "{}")],
)
def test_a_precision_that_did_not_happen_fails_and_writes_nothing(asked: str, listing: str, kit: Kit, run: Any) -> None:
    folder = kit()
    change(folder, products={"conv": asked, "attention": "float32"}, quantized=asked in ("int8", "float8"))
    code, said = run(folder, FakeTensorRT(listing=listing))
    assert code == 1
    assert f"{asked} was asked for, and no layer has it" in said
    assert not (folder / "model.engine").exists()
    assert run(folder, FakeTensorRT(listing=listing), "--allow-other-precision")[0] == 0
    assert (folder / "model.engine").exists()


@pytest.mark.parametrize(
    ("trt", "message"),
    [
        (FakeTensorRT("8.6.1"), "TensorRT 8.6.1 is too old"),
        (FakeTensorRT(refuses=True), "node odd (Odd): no kernel for it"),
        (FakeTensorRT("10.0.1", refuses=True), "node number 3: no kernel for it"),
        (FakeTensorRT(no_plan=True), "could not build the engine"),
        (FakeTensorRT(no_engine=True), "cannot open the engine that it built"),
    ],
)
def test_what_tensorrt_refuses_is_told(trt: FakeTensorRT, message: str, kit: Kit, run: Any) -> None:
    folder = kit()
    code, said = run(folder, trt)
    assert code == 2 and message in said and "Traceback" not in said
    assert not (folder / "model.engine").exists()


def test_a_dla_core_that_is_not_there(kit: Kit, run: Any) -> None:
    code, said = run(kit(dla_core=1), FakeTensorRT(dla_cores=0))
    assert code == 2 and "DLA core 1 was asked for" in said


def test_another_gpu_is_refused_unless_meant(kit: Kit, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "find_gpu", lambda: {"name": "Thor (stand-in)", "sm": 110})
    folder = kit()
    code, said = run(folder, FakeTensorRT())
    assert code == 2 and "SM110, the bundle is for SM87" in said
    assert run(folder, FakeTensorRT(), "--any-gpu")[0] == 0
    assert open_bundle(folder).manifest["engine"]["settings"]["sm"] == 110


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "model.onnx").write_bytes(b"cut"), "model.onnx has sha256"),
        (lambda folder: (folder / "build_settings.json").write_text("{"), "cannot read the build kit"),
        (lambda folder: (folder / "model.onnx").unlink(), "cannot read the build kit"),
        (lambda folder: change(folder, schema_version=9), "schema_version 9, expected 1"),
    ],
)
def test_a_damaged_kit_is_refused(spoil: Callable[[Path], Any], message: str, kit: Kit, run: Any) -> None:
    folder = kit()
    spoil(folder)
    code, said = run(folder, FakeTensorRT())
    assert code == 2 and message in said


def test_without_a_driver_the_build_here_says_so(small_graph: Any, make_bundle: Any) -> None:
    if script.shutil.which("nvidia-smi"):
        pytest.skip("there is a driver")
    with pytest.raises(TargetError, match=r"this machine, build_on_device.py.*this machine has no NVIDIA driver"):
        make_bundle(TARGET, small_graph("conv_net"), device="jetson-agx-orin", options={"build_on": "local"})


def test_without_a_driver_it_says_so(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = kit()
    monkeypatch.undo()

    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(script.ctypes, "CDLL", absent)
    assert script.main(["--folder", str(folder)]) == 2
    assert "this machine has no NVIDIA driver" in capsys.readouterr().err


class FakeCuda:
    """libcuda: a GPU of compute capability 8.7, or an error at one step."""

    def __init__(self, status: int = 0) -> None:
        self.cuInit = lambda flags: status
        self.cuDeviceGet = lambda device, index: 0
        self.cuDeviceGetAttribute = lambda place, what, device: setattr(place._obj, "value", {75: 8, 76: 7}[what]) or 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:
        name.value = b"Orin"
        return 0


def test_the_gpu_is_asked_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script.ctypes, "CDLL", lambda name: FakeCuda())
    found = script.find_gpu()
    assert (found["name"], found["sm"]) == ("Orin", 87) and found["driver"]
    monkeypatch.setattr(script.ctypes, "CDLL", lambda name: FakeCuda(100))
    with pytest.raises(script.BuildError, match="CUDA error 100"):
        script.find_gpu()


TRTEXEC = """#!{python}
import json, pathlib, sys
given = dict(item.removeprefix("--").partition("=")[::2] for item in sys.argv[1:])
if "help" in given:
    print("&&&& RUNNING TensorRT.trtexec [TensorRT v{number}] # a stand-in")
elif {fails}:
    print("[E] could not find any implementation")
    sys.exit(1)
else:
    pathlib.Path(given["saveEngine"]).write_bytes(b"an engine")
    pathlib.Path(given["exportLayerInfo"]).write_text({listing!r})
    pathlib.Path({log!r}).write_text(json.dumps(sys.argv[1:]))
"""


@pytest.fixture
def trtexec(tmp_path: Path) -> Callable[..., Path]:
    def make(number: str = "100300", fails: bool = False, listing: str = FLOAT16) -> Path:
        path = tmp_path / "trtexec"
        text = TRTEXEC.format(
            python=sys.executable, number=number, fails=fails, listing=listing, log=str(tmp_path / "log")
        )
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return make


def test_trtexec_is_asked_for_the_same_engine(kit: Kit, run: Any, trtexec: Any, tmp_path: Path) -> None:
    folder = kit(workspace_bytes=64 << 20)
    code, said = run(folder, None, "--trtexec", str(trtexec()), "--timing-cache", str(tmp_path / "t"))
    assert code == 0, said
    command = json.loads((tmp_path / "log").read_text())
    assert {
        "--stronglyTyped", "--skipInference", "--noTF32", "--memPoolSize=workspace:64M", "--minShapes=x:1x3x16x16",
        "--optShapes=x:1x3x16x16", "--maxShapes=x:8x3x16x16", f"--timingCacheFile={tmp_path / 't'}",
        "--profilingVerbosity=detailed", f"--onnx={folder / 'model.onnx'}",
    } <= set(command)  # fmt: skip
    assert (folder / "model.engine").read_bytes() == b"an engine"
    assert json.loads((folder / "model.engine.json").read_text())["tensorrt"] == "10.3.0"
    assert open_bundle(folder).manifest["engine"]["settings"]["engine_built"] is True, "no draft is left over"


@pytest.mark.parametrize(
    ("number", "expected", "unexpected"),
    [
        ("100300", {"--useDLACore=0", "--allowGPUFallback", "--fp16"}, {"--stronglyTyped", "--int8"}),
        ("110401", {"--useDLACore=0", "--allowGPUFallback"}, {"--stronglyTyped", "--fp16"}),
    ],
)
def test_trtexec_with_dla(
    number: str, expected: set[str], unexpected: set[str], kit: Kit, run: Any, trtexec: Any, tmp_path: Path
) -> None:
    assert run(kit(dla_core=0), None, "--trtexec", str(trtexec(number)))[0] == 0
    command = set(json.loads((tmp_path / "log").read_text()))
    assert expected <= command and not unexpected & command


@pytest.mark.parametrize(
    ("made", "code", "message"),
    [
        ({"fails": True}, 2, "could not find any implementation"),
        ({"number": "8601"}, 2, "too old"),
        ({"listing": FLOAT32}, 1, "float16 was asked for"),
        ({"listing": "not JSON"}, 1, "found no layers"),
    ],
)
def test_what_trtexec_refuses_is_told(
    made: dict[str, Any], code: int, message: str, kit: Kit, run: Any, trtexec: Any
) -> None:
    folder = kit()
    found, said = run(folder, None, "--trtexec", str(trtexec(**made)))
    assert found == code and message in said
    assert not (folder / "model.engine").exists()
    open_bundle(folder)


def test_without_tensorrt_and_trtexec_it_says_what_to_install(
    kit: Kit, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script.shutil, "which", lambda name: None)
    monkeypatch.setattr(script, "TRTEXEC_PLACES", ())
    code, said = run(kit(), None)
    assert code == 2 and "sudo apt install tensorrt" in said
    assert run(kit(), None, "--trtexec", "/no/such/file")[0] == 2


def test_the_script_needs_nothing_but_the_standard_library_and_python_3_8(kit: Kit) -> None:
    folder = kit()
    text = (folder / "build_on_device.py").read_text()
    assert text == Path(script.__file__).read_text()
    tree = ast.parse(text, feature_version=(3, 8))
    imported = {node.names[0].name for node in ast.walk(tree) if isinstance(node, ast.Import)}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names) == {"tensorrt"}
    done = subprocess.run(
        [sys.executable, "-I", str(folder / "build_on_device.py"), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "--timing-cache" in done.stdout


def listed(node: str, dtype: str, kind: str = "CaskConvolution", tactic: str = "sm80_xmma") -> dict[str, Any]:
    return layer(node, dtype, kind) | {"Metadata": f"[ONNX Layer: {node}]", "TacticName": tactic}


def test_a_product_in_another_precision_fails_though_others_have_it(kit: Kit, run: Any) -> None:
    folder = kit()
    change(folder, products={"conv1": "float16", "conv2": "float16", "folded": "float16", "norm_fc": "float16"})
    generated = listed("norm_fc", "Row major linear FP32", "kgen")
    generated["Inputs"].append({"Name": "w", "Format/Datatype": "Row major linear FP16"})
    good = [listed("conv1", "FP16", tactic="sm80_sparse_conv"), generated]
    code, said = run(folder, FakeTensorRT(listing=json.dumps({"Layers": [*good, listed("conv2", "FP32")]})))
    assert code == 1 and not (folder / "model.engine").exists()
    assert "1 of 4 products run in another precision" in said and "conv2 (float16 asked, float32 found)" in said
    convert, attention = layer("to NHWC", "FP16", "Reformat"), layer("_gemm_mha_v2", "FP16", "kgen")
    others = [listed("conv2", "FP16"), convert, attention]
    code, said = run(folder, FakeTensorRT(listing=json.dumps({"Layers": [*good, *others]})))
    assert code == 0 and "sparse kernels: conv1" in said
    proof = json.loads((folder / "manifest.json").read_text())["engine"]["proof"]
    assert proof["sparse"]["layers"] == ["conv1"] and proof["not_as_asked"] == []
    assert proof["products"] == {"float16": 3, "no kernel of its own": 1}
    assert (proof["format_changes"], proof["fused_attention"]) == (["to NHWC"], ["_gemm_mha_v2"])
    assert proof["device"] == "Orin (stand-in), SM87, driver unknown, TensorRT 11.4.0"
    bad = json.dumps({"Layers": [*good, listed("conv2", "FP32")]})
    assert run(folder, FakeTensorRT(listing=bad), "--allow-other-precision")[0] == 0
    proof = json.loads((folder / "manifest.json").read_text())["engine"]["proof"]
    assert proof["not_as_asked"] == [{"node": "conv2", "asked": "float16", "found": "float32"}]


def test_float8_on_the_device_is_float8(kit: Kit, run: Any) -> None:
    folder = kit()
    change(folder, products={"conv1": "float8"}, quantized=True)
    code, said = run(folder, FakeTensorRT(listing=json.dumps({"Layers": [listed("conv1", "FP8")]})))
    assert code == 0, said
    assert json.loads((folder / "model.engine.json").read_text())["proof"]["products"] == {"float8": 1}


def test_sparse_and_compatible_engines_are_asked_for(kit: Kit, run: Any, trtexec: Any, tmp_path: Path) -> None:
    folder = kit(version_compatible=True, hardware_compatible="ampere_plus")
    change(folder, sparse=True)
    trt = FakeTensorRT(host_code=True)
    trt.BuilderFlag.SPARSE_WEIGHTS, trt.BuilderFlag.VERSION_COMPATIBLE = "SPARSE", "VERSION"
    trt.HardwareCompatibilityLevel = SimpleNamespace(AMPERE_PLUS="ampere and later")
    assert run(folder, trt)[0] == 0
    assert trt.calls["flags"] == ["SPARSE", "VERSION"]
    assert trt.calls["config"].hardware_compatibility_level == "ampere and later"
    assert run(folder, None, "--trtexec", str(trtexec()))[0] == 0
    command = json.loads((tmp_path / "log").read_text())
    assert {"--sparsity=enable", "--versionCompatible", "--hardwareCompatibilityLevel=ampere+"} <= set(command)
    trt.HardwareCompatibilityLevel = SimpleNamespace()
    code, said = run(folder, trt)
    assert code == 2 and "no hardware compatibility level 'ampere_plus'" in said
