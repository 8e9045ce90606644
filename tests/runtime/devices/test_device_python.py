"""ONNX Runtime and TensorRT bundles on a device, through a real OpenSSH server: with the host's own Python, and with ``trtexec``.

ONNX Runtime is the real one. There is no GPU: trtexec is a stand-in that says so; its options and files are those of TensorRT 10.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

import edgewise
from edgewise.runtime.devices import DeviceError
from edgewise.runtime.devices.trtexec import _dotted, _series
from edgewise.runtime.errors import GateError, RunError

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

_NET = """
<ir_version: 8, opset_import: ["" : 18]>
net (float[2, 3] x) => (float[2, 3] y) { y = Add (x, x) }
"""


def test_onnxruntime_runs_there(host: Any, doubling_bundle: Any) -> None:
    made = doubling_bundle(
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


def test_a_python_without_onnxruntime_is_said_so(host: Any, doubling_bundle: Any) -> None:
    made = doubling_bundle("onnxruntime", content=b"onnx", name="model.onnx")
    with pytest.raises(DeviceError, match="no Python that can run the bundle") as caught:
        edgewise.profile(made, device=host(f"env PYTHONPATH= {sys.executable} -I -S"))
    assert "without" in caught.value.found and "onnxruntime" in caught.value.found
    assert "numpy and onnxruntime" in caught.value.expected and "runner" in caught.value.fix


@pytest.fixture
def jetson(host: Any, trtexec: Path) -> str:
    """A device whose Python lacks TensorRT, with a trtexec that stands in."""
    return str(host())


def test_trtexec_runs_an_engine_there(jetson: str, doubling_bundle: Any) -> None:
    made = doubling_bundle("tensorrt", library="tensorrt", sm=87, version="10.3.0")
    found = edgewise.profile(made, device=jetson, runs=30, per_layer=True)
    assert found["parity"]["passed"] and found["parity"]["outputs"][0]["samples"] == 2
    assert found["engine"] == {"library": "tensorrt", "version": "10.3.0", "unit": "gpu", "through": "trtexec"}
    assert found["latency_ms"]["median"] == pytest.approx(1.5145) and len(found["latency_ms"]["samples"]) == 30
    assert found["load_ms"] == 12.5 and found["first_run_ms"] is None and found["device"]["cores"] >= 1
    assert [(layer["name"], layer["median_ms"]) for layer in found["layers"]] == [("conv + relu", 0.9)]
    times = [{"startH2dMs": 400.0 * i, "endD2hMs": 400.0 * i + 1, "latencyMs": 1.0 + i} for i in range(6)]
    assert [(p["at_s"], p["median_ms"]) for p in _series(times)] == [(1.0, 2.0), (2.0, 4.5), (3.0, 6.0)]
    with pytest.raises(GateError, match="do not agree"):
        edgewise.verify(doubling_bundle("tensorrt", spoil=3.0, library="tensorrt", sm=87), device=jetson)


def test_what_trtexec_refuses_is_told(jetson: str, doubling_bundle: Any) -> None:
    with pytest.raises(DeviceError, match="trtexec cannot run the engine") as caught:
        edgewise.profile(doubling_bundle("tensorrt", content=b"other", library="tensorrt", sm=87), device=jetson)
    assert "not compatible (a stand-in)" in caught.value.found and "build_on" in caught.value.fix
    with pytest.raises(DeviceError, match="trtexec cannot measure that"):
        edgewise.profile(doubling_bundle("tensorrt", library="tensorrt", sm=87), device=jetson, cold=True)


def test_an_engine_that_brings_code_runs_there_where_it_is_trusted(
    jetson: str, doubling_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = doubling_bundle("tensorrt", library="tensorrt", sm=87, version_compatible=True, content=b"engine with code")
    monkeypatch.delenv("EDGEWISE_TRUST_ENGINE_CODE", raising=False)
    with pytest.raises(RunError, match="expected EDGEWISE_TRUST_ENGINE_CODE=1"):
        edgewise.verify(made, device=jetson)
    monkeypatch.setenv("EDGEWISE_TRUST_ENGINE_CODE", "1")
    assert edgewise.verify(made, device=jetson)["parity"]["passed"]


def test_a_device_without_tensorrt_is_said_so(host: Any, doubling_bundle: Any) -> None:
    made = doubling_bundle("tensorrt", library="tensorrt", sm=87)
    with pytest.raises(DeviceError, match="no TensorRT that can be reached") as caught:
        edgewise.profile(made, device=host())
    assert caught.value.found == "a Python without tensorrt, and no trtexec" and "trtexec" in caught.value.fix
    graph = doubling_bundle("tensorrt", name="model.onnx", library="tensorrt", sm=87)
    with pytest.raises(DeviceError, match="there is no engine to run yet") as caught:
        edgewise.profile(graph, device="host")
    assert "build_on" in caught.value.fix


@pytest.mark.parametrize(("number", "version"), [("8601", "8.6.1"), ("100300", "10.3.0"), ("101303", "10.13.3")])
def test_versions_as_trtexec_writes_them(number: str, version: str) -> None:
    assert _dotted(number) == version
