"""ONNX Runtime and TensorRT bundles on a device, through a real OpenSSH server: with the host's own Python, and with ``trtexec``.

ONNX Runtime is the real one. There is no GPU: trtexec is a stand-in that says so; its options and files are those of TensorRT 10.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import edgewise
from edgewise.runtime.bundle import create_bundle, save_reference
from edgewise.runtime.devices import DeviceError
from edgewise.runtime.devices.trtexec import _dotted, _series
from edgewise.runtime.errors import GateError

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

_NET = """
<ir_version: 8, opset_import: ["" : 18]>
net (float[2, 3] x) => (float[2, 3] y) { y = Add (x, x) }
"""
_TRTEXEC = """#!{python} -SE
import array, json, pathlib, sys
print("&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # a stand-in")
given = dict(item.removeprefix("--").partition("=")[::2] for item in sys.argv[1:])
engine = pathlib.Path(given["loadEngine"]).read_bytes()
if engine != b"engine":
    print("[09/01/2026-10:00:00] [E] Error[1]: the engine plan file is not compatible (a stand-in)")
    sys.exit(1)
print("[I] Engine deserialized in 0.0125 sec.")
name, file = given["loadInputs"].split(":")
x = array.array("f", pathlib.Path(file).read_bytes())
assert name == "x" and given.get("shapes", "x:2x3") == "x:2x3"
if "exportOutput" in given:
    told = [dict(name="y", dimensions="2x3", values=[2 * value for value in x])]
    pathlib.Path(given["exportOutput"]).write_text(json.dumps(told))
if "exportTimes" in given:
    runs = int(given.get("iterations", 50))
    times = [dict(startH2dMs=100.0 * i, endD2hMs=100.0 * i + 1.5, computeMs=1.0, latencyMs=1.5 + i / 1000) for i in range(runs)]
    pathlib.Path(given["exportTimes"]).write_text(json.dumps(times))
if "exportProfile" in given:
    layers = [dict(count=50), dict(name="conv + relu", timeMs=50.0, averageMs=1.0, medianMs=0.9, percentage=100.0)]
    pathlib.Path(given["exportProfile"]).write_text(json.dumps(layers))
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Path]:
    """y = 2x as an engine of a kind, with ``spoil`` added to the reference."""

    def make(
        kind: str, spoil: float = 0.0, content: bytes = b"engine", name: str = "model.engine", **more: Any
    ) -> Path:
        path = tmp_path / f"{kind}.edge"
        inputs = [{"x": np.full((2, 3), index, np.float32)} for index in range(1, 3)]
        outputs = [{"y": sample["x"] * 2 + np.float32(spoil)} for sample in inputs]
        with create_bundle(path) as (draft, manifest):
            (draft / name).write_bytes(content)
            save_reference(draft / "reference.npz", inputs, outputs)
            manifest |= {
                "inputs": [{"name": "x", "dtype": "float32", "shape": ["N", 3]}],
                "outputs": [{"name": "y", "dtype": "float32", "shape": ["N", 3]}],
                "target": kind,
                "engine": {"kind": kind, "files": [name], "settings": {"model": name, **more}},
            }
        return path

    return make


@pytest.fixture
def host(sshd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Name a device with this Python, which another user may not read: the server lets ourselves in."""

    def name(python: str = sys.executable, path: str = "") -> str:
        script = tmp_path / "python3"
        script.write_text(f'#!/bin/sh\nexec {python} "$@"\n')
        script.chmod(0o755)
        address = sshd.address().replace(f"//{sshd.user}@", f"//{getpass.getuser()}@")
        devices = tmp_path / "devices.toml"
        devices.write_text(f'[host]\naddress = "{address}"\nrunner = "{script}"\nfolder = "{tmp_path / "sent"}"\n')
        monkeypatch.setenv("EDGEWISE_DEVICES", str(devices))
        return "host"

    return name


def test_onnxruntime_runs_there(host: Any, bundle: Any) -> None:
    made = bundle(
        "onnxruntime", content=onnx.parser.parse_model(_NET).SerializeToString(), name="model.onnx", providers=["CPUExecutionProvider"]
    )  # fmt: skip
    found = edgewise.profile(made, device=host(), runs=12, warmup=1, threads=1, cold=True, per_layer=True)
    assert found["parity"]["passed"] and found["parity"]["outputs"][0]["exact"]
    assert found["engine"]["library"] == "onnxruntime" and found["reached"] == "host"
    assert len(found["latency_ms"]["samples"]) == 12 and found["load_ms"] > 0
    assert found["cold"]["load_ms"] > 0 and found["cold"]["page_cache"].startswith(("dropped", "kept: "))
    assert found["layers"][0]["op"] == "Add" and found["layers"][0]["of_attainable"] is None
    with pytest.raises(DeviceError, match="cannot run several contexts at once there") as caught:
        edgewise.profile(made, device="host", runs=2, concurrency_sweep=[1, 2])
    assert "libedgewise" in caught.value.expected


def test_a_python_without_onnxruntime_is_said_so(host: Any, bundle: Any) -> None:
    made = bundle("onnxruntime", content=b"onnx", name="model.onnx")
    with pytest.raises(DeviceError, match="no Python that can run the bundle") as caught:
        edgewise.profile(made, device=host(f"env PYTHONPATH= {sys.executable} -I -S"))
    assert "without" in caught.value.found and "onnxruntime" in caught.value.found
    assert "numpy and onnxruntime" in caught.value.expected and "runner" in caught.value.fix


@pytest.fixture
def jetson(host: Any, agents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A device whose Python lacks TensorRT, with a trtexec that stands in."""
    monkeypatch.setenv("EDGEWISE_AGENTS", str(agents))
    program = tmp_path / "trtexec"
    program.write_text(_TRTEXEC.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setitem(sys.modules["edgewise.runtime.devices.trtexec"]._PROGRAMS, "tensorrt", (str(program),))
    return str(host())


def test_trtexec_runs_an_engine_there(jetson: str, bundle: Any) -> None:
    made = bundle("tensorrt", library="tensorrt", sm=87, version="10.3.0")
    found = edgewise.profile(made, device=jetson, runs=30, per_layer=True)
    assert found["parity"]["passed"] and found["parity"]["outputs"][0]["samples"] == 2
    assert found["engine"] == {"library": "tensorrt", "version": "10.3.0", "unit": "gpu", "through": "trtexec"}
    assert found["latency_ms"]["median"] == pytest.approx(1.5145) and len(found["latency_ms"]["samples"]) == 30
    assert found["load_ms"] == 12.5 and found["first_run_ms"] is None and found["device"]["cores"] >= 1
    assert [(layer["name"], layer["median_ms"]) for layer in found["layers"]] == [("conv + relu", 0.9)]
    times = [{"startH2dMs": 400.0 * i, "endD2hMs": 400.0 * i + 1, "latencyMs": 1.0 + i} for i in range(6)]
    assert [(p["at_s"], p["median_ms"]) for p in _series(times)] == [(1.0, 2.0), (2.0, 4.5), (3.0, 6.0)]
    with pytest.raises(GateError, match="do not agree"):
        edgewise.verify(bundle("tensorrt", spoil=3.0, library="tensorrt", sm=87), device=jetson)


def test_what_trtexec_refuses_is_told(jetson: str, bundle: Any) -> None:
    with pytest.raises(DeviceError, match="trtexec cannot run the engine") as caught:
        edgewise.profile(bundle("tensorrt", content=b"other", library="tensorrt", sm=87), device=jetson)
    assert "not compatible (a stand-in)" in caught.value.found and "build_on" in caught.value.fix
    with pytest.raises(DeviceError, match="trtexec cannot measure that"):
        edgewise.profile(bundle("tensorrt", library="tensorrt", sm=87), device=jetson, cold=True)


def test_a_device_without_tensorrt_is_said_so(host: Any, bundle: Any) -> None:
    made = bundle("tensorrt", library="tensorrt", sm=87)
    with pytest.raises(DeviceError, match="no TensorRT that can be reached") as caught:
        edgewise.profile(made, device=host())
    assert caught.value.found == "a Python without tensorrt, and no trtexec" and "trtexec" in caught.value.fix
    graph = bundle("tensorrt", name="model.onnx", library="tensorrt", sm=87)
    with pytest.raises(DeviceError, match="there is no engine to run yet") as caught:
        edgewise.profile(graph, device="host")
    assert "build_on" in caught.value.fix


@pytest.mark.parametrize(("number", "version"), [("8601", "8.6.1"), ("100300", "10.3.0"), ("101303", "10.13.3")])
def test_versions_as_trtexec_writes_them(number: str, version: str) -> None:
    assert _dotted(number) == version
