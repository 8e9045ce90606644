"""The engine for Core ML without a Mac: the conversions of its ports, and the engine on a stand-in for coremltools."""

from __future__ import annotations

import platform
import sys
import types

import numpy as np
import pytest
from PIL import Image

from edgewise.runtime.core_ml_ports import Port, read_ports
from edgewise.runtime.errors import RunError
from edgewise.runtime.model import load
from edgewise.runtime.preprocess import Preprocess

PORTS = {
    "inputs": [{"name": "x/in", "coreml": "x_in", "dtype": "float32", "scalar": False}],
    "outputs": [
        {"name": "y", "coreml": "y_out", "dtype": "float32", "scalar": False},
        {"name": "n", "coreml": "n", "dtype": "int64", "scalar": True},
    ],
}


@pytest.fixture
def package_bundle(make_bundle):
    def make(**changes):
        from edgewise.runtime.bundle import open_bundle, seal

        path = make_bundle(
            engine={"kind": "coreml", "files": [], "settings": {"package": "model.mlpackage", **PORTS} | changes},
            inputs=[{"name": "x/in", "dtype": "float32", "shape": [2, 3]}],
            outputs=[{"name": "y", "dtype": "float32", "shape": [2, 3]}, {"name": "n", "dtype": "int64", "shape": []}],
        )
        manifest = open_bundle(path).manifest
        (path / "model.mlpackage").mkdir()
        (path / "model.mlpackage" / "Manifest.json").write_text("{}")
        seal(path, manifest)
        return path

    return make


class FakeModel:
    def __init__(self, package, compute_units):
        if compute_units == "units CPU_ONLY":
            raise RuntimeError("Error compiling model:\n too new")
        self.package = package

    def predict(self, given):
        (x,) = given.values()
        if x[0, 0] < 0:
            raise RuntimeError("predict failed")
        assert list(given) == ["x_in"]
        return {"y_out": x.astype(np.float16) * 2, "n": np.array([x.size], np.int32)}

    def get_compiled_model_path(self):
        return "compiled"

    def make_state(self):
        return FakeState()


class FakeState(dict):
    read_state = dict.__getitem__

    def write_state(self, name, value):
        assert value.dtype == np.float16, "Core ML has states in float16 alone"
        self[name] = value


class FakeKeeper(FakeModel):
    """Keeps ``x_in``: each prediction adds 1 to it."""

    def predict(self, given, state):
        assert given == {}
        state["x_in"] = state["x_in"] + np.float16(1)
        return {"n": np.array([state["x_in"].size], np.int32)}


class MLNeuralEngineComputeDevice: ...


class MLCPUComputeDevice: ...


class FakePlan:
    @classmethod
    def load_from_path(cls, path, units):
        assert (path, units) == ("compiled", "units ALL")
        return cls()

    @property
    def model_structure(self):
        names = ("const", "conv", "relu")
        operations = [
            types.SimpleNamespace(operator_name=name, outputs=[types.SimpleNamespace(name=f"{name}_0")])
            for name in names
        ]
        main = types.SimpleNamespace(block=types.SimpleNamespace(operations=operations))
        return types.SimpleNamespace(program=types.SimpleNamespace(functions={"main": main}))

    def get_estimated_cost_for_mlprogram_operation(self, operation):
        weights = {"conv": 0.75, "relu": 0.25}
        name = operation.operator_name
        return types.SimpleNamespace(weight=weights[name]) if name in weights else None

    def get_compute_device_usage_for_mlprogram_operation(self, operation):
        device = {"conv": MLNeuralEngineComputeDevice, "relu": MLCPUComputeDevice}.get(operation.operator_name)
        return types.SimpleNamespace(preferred_compute_device=device()) if device else None


@pytest.fixture
def mac(monkeypatch):
    tools, models, plan = (types.ModuleType(f"coremltools{rest}") for rest in ("", ".models", ".models.compute_plan"))
    tools.__version__ = "9.0"
    tools.ComputeUnit = {name: f"units {name}" for name in ("ALL", "CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE")}
    tools.models, models.MLModel, plan.MLComputePlan = models, FakeModel, FakePlan
    for module in (tools, models, plan):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "mac_ver", lambda: ("15.1", ("", "", ""), "arm64"))


def test_it_runs(mac, package_bundle):
    model = load(package_bundle(), per_layer=True)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    got = model.run({"x/in": x})
    np.testing.assert_array_equal(got["y"], 2 * x)
    assert (got["n"].shape, got["n"].dtype.name, int(got["n"])) == ((), "int64", 6)
    assert model.facts()["unit"] == "neural engine"
    assert model.facts()["units allowed"] == "ALL"
    layers = model.layer_times()
    assert [(layer.name, layer.op, layer.unit) for layer in layers] == [
        ("conv_0", "conv", "neural engine"),
        ("relu_0", "relu", "cpu"),
    ]
    assert layers[0].median_ms == pytest.approx(3 * layers[1].median_ms)
    assert all(layer.detail["estimated"] for layer in layers)


def test_no_layers_without_being_asked(mac, package_bundle):
    model = load(package_bundle())
    model.run({"x/in": np.ones((2, 3), np.float32)})
    assert model.layer_times() == []


STATES = [{"name": "x/in", "output": "y", "coreml": "x_in", "dtype": "float32"}]


def test_a_state_is_what_the_network_is_given_and_gives(mac, package_bundle):
    sys.modules["coremltools.models"].MLModel = FakeKeeper
    model = load(package_bundle(inputs=[], outputs=PORTS["outputs"][1:], states=STATES))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for _ in range(2):  # nothing is left of the run before
        got = model.run({"x/in": x})
        np.testing.assert_array_equal(got["y"], x + 1)
        assert (got["y"].dtype.name, int(got["n"])) == ("float32", 6)


def test_what_core_ml_refuses(mac, package_bundle):
    with pytest.raises(RunError, match="RuntimeError: Error compiling model: too new; expected a package that this"):
        load(package_bundle(compute_units="CPU_ONLY"))
    with pytest.raises(RunError, match="predict failed"):
        load(package_bundle()).run({"x/in": -np.ones((2, 3), np.float32)})
    outputs = [PORTS["outputs"][0] | {"coreml": "other"}, PORTS["outputs"][1]]
    with pytest.raises(RunError, match=r"output 'y'\): found nothing; expected an output 'other'"):
        load(package_bundle(outputs=outputs)).run({"x/in": np.ones((2, 3), np.float32)})


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML is here")
def test_not_a_mac(package_bundle):
    with pytest.raises(RunError, match=r"found .*, which has no Core ML; expected a Mac with macOS 12 or later\. Copy"):
        load(package_bundle())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"package": None}, "found package None"),
        ({"package": "other.mlpackage"}, r"found package 'other\.mlpackage'"),
        ({"compute_units": "MOON"}, "found compute_units 'MOON'; expected one of ALL"),
        ({"compute_units": ["ALL"]}, "found compute_units"),
        ({"inputs": None}, r"settings\.inputs\): found TypeError"),
        ({"inputs": [3]}, r"settings\.inputs\): found (TypeError|AttributeError)"),
        ({"states": [{"name": "x/in"}]}, r"settings\.states\): found KeyError: 'output'"),
        ({"outputs": [{"name": "y"}]}, r"settings\.outputs\): found KeyError: 'coreml'"),
        ({"outputs": [{"name": "y", "coreml": "y", "dtype": "float99"}]}, "found TypeError"),
        ({"inputs": [PORTS["inputs"][0] | {"image": {"scale": "much"}}]}, r"cannot read the preprocessing \(scale\)"),
    ],
)
def test_settings_of_another_form(package_bundle, changes, says):
    with pytest.raises(RunError, match=says):
        load(package_bundle(**changes))


def test_numbers_on_their_way():
    for dtype, given in (
        ("float64", "float32"),
        ("float32", "float32"),
        ("float16", "float16"),
        ("int64", "int32"),
        ("bool", "int32"),
    ):
        array = np.ones((2, 2), dtype)
        assert Port("p", "p", dtype).given(array).dtype.name == given
        assert Port("p", "p", dtype).made(np.ones((2, 2), given)).dtype.name == dtype
    assert Port("p", "p", "int64", scalar=True).given(np.array(5)).shape == (1,)
    assert Port("p", "p", "float32", scalar=True).given(np.array(5.0)).shape == (1,)
    assert Port("p", "p", "int64").made(np.ones(2, np.float32)).dtype.name == "float32"
    assert Port("p", "p", "int64").given(np.zeros(0, np.int64)).dtype.name == "int32"
    with pytest.raises(RunError, match="expected integers of 32 bits"):
        Port("p", "p", "int64").given(np.array([1 << 31]))


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_an_image_input_gets_the_pixels_back(color):
    mean, std = ((0.5,), (0.25,)) if color == "gray" else ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    prepare = Preprocess(color=color, scale=255.0, mean=mean, std=std)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert("L" if color == "gray" else "RGB")
    (port,) = read_ports(
        [{"name": "x", "coreml": "x", "dtype": "float32", "image": prepare.to_json()}], "here"
    )  # fmt: skip
    np.testing.assert_array_equal(np.asarray(port.given(prepare(image))), np.asarray(image))
