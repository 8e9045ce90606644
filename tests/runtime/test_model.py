"""A bundle loaded and run: against the reference evaluator, per-layer times, the null engine, and inputs that do not fit."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from edgewise.runtime.compare import require_parity
from edgewise.runtime.engines import engine_kinds
from edgewise.runtime.errors import GateError, MissingExtraError, RunError
from edgewise.runtime.model import load


def image(batch: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, 3, 8, 8)).astype(np.float32)


@settings(max_examples=8)
@given(batch=st.integers(1, 5), threads=st.integers(0, 2), seed=st.integers(0, 99))
def test_runs_what_the_reference_runs(make_bundle, net, batch, threads, seed):
    model = load(make_bundle(), threads=threads)
    x = image(batch, seed)
    got = model.run({"x": x})
    np.testing.assert_allclose(got["y"], ReferenceEvaluator(net).run(["y"], {"x": x})[0], rtol=1e-4, atol=1e-4)
    assert list(got) == ["y"]


def test_any_memory_layout_and_byte_order(make_bundle):
    model = load(make_bundle(), threads=1)
    x = image(2)
    want = model.run({"x": x})["y"]
    for other in (np.asfortranarray(x), x[:, ::-1][:, ::-1], x.astype(">f4"), np.repeat(x, 2, axis=3)[..., ::2]):
        np.testing.assert_array_equal(model.run({"x": other})["y"], want)


def test_the_bundles_own_samples(make_bundle):
    model = load(make_bundle(), threads=1)
    (parity,) = model.check()
    assert parity.samples == 2
    require_parity([parity], min_sqnr_db=100, where="test")


def test_facts_and_specs(make_bundle):
    model = load(make_bundle(), threads=1)
    assert model.facts().keys() == {"library", "version", "unit"}
    assert model.facts()["unit"] == "cpu"
    assert (model.inputs[0].shape, model.outputs[0].name) == (("N", 3, 8, 8), "y")
    assert model.bundle.manifest["target"] == "cpu"
    assert model.layer_times() == []


def test_per_layer_times_name_every_kernel_and_count_its_macs(make_bundle, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    model = load(make_bundle(), threads=1, per_layer=True)
    for _ in range(4):
        model.run({"x": image(2)})
    layers = model.layer_times()
    by_op = {layer.op: layer for layer in layers}
    assert {"Conv", "MatMul"} <= set(by_op)
    assert by_op["MatMul"].detail == {"macs": 2 * 256 * 5, "runs": 3}
    # The kernel may pad its 4 channels up to the width of a register.
    assert by_op["Conv"].detail["macs"] % (2 * 8 * 8 * 3 * 3 * 3 * 4) == 0
    assert all(layer.unit == "cpu" and layer.median_ms >= 0 for layer in layers)
    assert model.layer_times() == layers
    del model
    assert list(scratch.iterdir()) == []


def test_per_layer_without_a_run(make_bundle):
    assert load(make_bundle(), threads=1, per_layer=True).layer_times() == []


def test_a_zip_lives_as_long_as_its_model(make_bundle, tmp_path, monkeypatch):
    bundle = make_bundle()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with zipfile.ZipFile(tmp_path / "net.zip", "w") as archive:
        for file in bundle.rglob("*"):
            archive.write(file, file.relative_to(bundle).as_posix())
    model = load(tmp_path / "net.zip", threads=1)
    assert model.check()
    del model
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, "found no inputs; expected x"),
        ({"x": image(), "q": image()}, "found x, q; expected x"),
        ({"y": image()}, "found y; expected x"),
        ({"x": [[1.0]]}, "found list; expected a numpy array"),
        ({"x": image().astype(np.float64)}, r"float64\[1, 3, 8, 8\]; expected float32\[N, 3, 8, 8\]"),
        ({"x": image()[0]}, r"float32\[3, 8, 8\]"),
        ({"x": image()[:, :2]}, r"float32\[1, 2, 8, 8\]"),
    ],
)
def test_inputs_that_do_not_fit(make_bundle, inputs, says):
    with pytest.raises(RunError, match=says):
        load(make_bundle(), threads=1).run(inputs)


def test_a_symbolic_dim_has_one_length(make_bundle):
    spec = {"dtype": "float32", "shape": ["N", 3, 8, 8]}
    path = make_bundle(engine={"kind": "null"}, inputs=[{"name": "x", **spec}, {"name": "z", **spec}])
    with pytest.raises(RunError, match=r"the dim 'N' has two lengths .*: found 1 in 'x', 2 in 'z'"):
        load(path).run({"x": image(1), "z": image(2)})


def test_the_null_engine_gives_zeros_and_fails_the_comparison(make_bundle):
    model = load(make_bundle(engine={"kind": "null"}), per_layer=True)
    y = model.run({"x": image(3)})["y"]
    assert (y.shape, y.dtype.name, y.any()) == ((3, 5), "float32", np.False_)
    assert model.facts()["unit"] == "none"
    assert model.layer_times() == []
    with pytest.raises(GateError):
        require_parity(model.check(), min_sqnr_db=10, where="null")


def test_the_null_engine_and_other_dims(make_bundle):
    outputs = [
        {"name": "a", "dtype": "int64", "shape": ["unknown", 2]},
        {"name": "s", "dtype": "bool", "shape": []},
    ]
    got = load(make_bundle(engine={"kind": "null"}, outputs=outputs)).run({"x": image(3)})
    assert {name: (array.shape, array.dtype.name) for name, array in got.items()} == {
        "a": ((1, 2), "int64"),
        "s": ((), "bool"),
    }
    with pytest.raises(RunError, match="bfloat16"):
        load(make_bundle(engine={"kind": "null"}, outputs=[outputs[0] | {"dtype": "bfloat16"}]))


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        ({"kind": "abacus"}, "found engine kind 'abacus'; expected one of coreml, native, null, onnxruntime, tensorrt"),
        ({"settings": {}}, r"engine\.settings\.model\): found None"),
        ({"settings": {"model": 3}}, "found 3"),
        ({"settings": {"model": "other.onnx"}}, r"no 'other\.onnx'"),
        ({"settings": {"model": "../model.onnx"}}, r"no '\.\./model\.onnx'"),
        ({"settings": {"model": "reference.npz"}}, "ONNX Runtime refuses the model"),
        ({"settings": {"model": "model.onnx", "providers": "CPU"}}, "expected a list of execution providers"),
        ({"settings": {"model": "model.onnx", "providers": []}}, "expected a list of execution providers"),
        (
            {"settings": {"model": "model.onnx", "providers": ["MoonExecutionProvider"]}},
            "lacks .*no MoonExecutionProvider",
        ),
    ],
)
def test_engines_that_do_not_open(make_bundle, engine, says):
    with pytest.raises(RunError, match=says):
        load(make_bundle(engine=engine))


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_does_not_start_is_not_left_out_silently(make_bundle, monkeypatch):
    import onnxruntime

    wanted = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: wanted)
    path = make_bundle(engine={"settings": {"model": "model.onnx", "providers": wanted}})
    with pytest.raises(RunError, match=r"does not start .*found no CUDAExecutionProvider, only CPUExecutionProvider"):
        load(path)


def test_threads_below_zero(make_bundle):
    with pytest.raises(RunError, match="found -1 threads"):
        load(make_bundle(), threads=-1)


def test_an_engine_that_gives_something_else_than_the_manifest_says(make_bundle):
    for outputs, says in [
        ([{"name": "z", "dtype": "float32", "shape": ["N", 5]}], r"output 'z'\): found nothing"),
        ([{"name": "y", "dtype": "float16", "shape": ["N", 5]}], r"found float32\[1, 5\]; expected float16\[N, 5\]"),
        ([{"name": "y", "dtype": "float32", "shape": ["N", 5, 1]}], "expected float32"),
        ([{"name": "y", "dtype": "float32", "shape": ["N", 6]}], r"found float32\[1, 5\]; expected float32\[N, 6\]"),
    ]:
        model = load(make_bundle(outputs=outputs), threads=1)
        with pytest.raises(RunError, match=says):
            model.run({"x": image()})


def test_a_library_that_is_not_installed_is_named(make_bundle, monkeypatch):
    import importlib.util
    import sys

    path, find_spec = make_bundle(), importlib.util.find_spec
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find_spec(name))
    with pytest.raises(MissingExtraError, match=r"edgewise\[cpu\]"):
        load(path)


def test_external_data_outside_the_bundle_is_not_read(make_bundle, net, tmp_path: Path):
    path = make_bundle(engine={"settings": {"model": "evil.onnx"}})
    (tmp_path / "secret.bin").write_bytes(bytes(4 * 4 * 27))
    tensor = net.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")
    from edgewise.runtime.bundle import open_bundle, seal

    manifest = open_bundle(path).manifest
    (path / "evil.onnx").write_bytes(net.SerializeToString())
    seal(path, manifest)
    with pytest.raises(RunError, match="ONNX Runtime refuses the model"):
        load(path)


def test_there_is_one_file_per_kind():
    assert engine_kinds() == ["coreml", "native", "null", "onnxruntime", "tensorrt"]


def test_torch_tensors_go_in_and_come_out(make_bundle):
    torch = pytest.importorskip("torch")
    model = load(make_bundle())
    arrays = {spec.name: np.ones(spec.concrete(2), spec.dtype) for spec in model.inputs}
    want = model.run(arrays)
    have = model.run({name: torch.from_numpy(array) for name, array in arrays.items()})
    assert {name: type(value) for name, value in have.items()} == dict.fromkeys(want, torch.Tensor)
    assert all(np.array_equal(have[name].numpy(), want[name]) for name in want)

    class Elsewhere:
        def __dlpack_device__(self):
            return 2, 0

        def __dlpack__(self, **_):
            raise AssertionError("nobody reads it")

    with pytest.raises(RunError, match=r"DLPack device \(2, 0\).*does not run on a GPU"):
        model.run(dict.fromkeys(arrays, Elsewhere()))
    assert model.phase_times() == {}


def test_prepared_inputs_are_checked_once_and_run_again_and_again(make_bundle):
    model = load(make_bundle(), threads=1)
    sample = model.bundle.reference()[0][0]
    run = model.prepare(sample)
    for _ in range(2):
        np.testing.assert_array_equal(run()["y"], model.run(sample)["y"])
    assert model.timed(sample)() > 0
    with pytest.raises(RunError, match="other names"):
        model.prepare({"other": sample["x"]})
    with pytest.raises(RunError, match="float64"):
        model.prepare({"x": sample["x"].astype(np.float64)})
