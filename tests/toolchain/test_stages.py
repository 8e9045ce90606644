"""The pieces under the verbs: what travels inside an ONNX file, paths in recipes, thresholds, identities, facts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.errors import GateFailedError, ToolchainError, error_entry
from edgewise.local import gpus, instructions, this_machine
from edgewise.places import moved, place_name, split_place
from edgewise.recipe import Recipe
from edgewise.runtime.errors import GateError
from edgewise.runtime.onnx_file import read_onnx
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.settings import QuantizeSettings, VerifySettings
from edgewise.stages.cache import no_empty_folders
from edgewise.stages.choices import match_devices
from edgewise.stages.facts import network_entry, weights_of
from edgewise.stages.gates import accuracy_gates
from edgewise.stages.identity import key_of, place_digest, versions
from edgewise.stages.network import Network, load_network, only, read_network, save_network, tensor_spec
from edgewise.stages.pipeline import default_name
from edgewise.stages.quantize import quantize_stage
from edgewise.stages.reference import with_reference
from edgewise.stages.verify import source_threshold, verify_engine
from edgewise.targets import Executor, find_device, find_target


@pytest.fixture
def network(tiny: Path) -> Network:
    return with_reference(read_network(tiny), None, None)


def test_provenance_travels_inside_the_file_and_not_into_the_engine(network: Network, tmp_path: Path) -> None:
    told = network.after(network.model, export={"opset": 18}).after(network.model, quantize={"scheme": "int8"})
    save_network(told, tmp_path)
    again = load_network(tmp_path)
    assert again.provenance == {"export": {"opset": 18}, "quantize": {"scheme": "int8"}}
    assert again.bare().metadata_props == {}
    assert again.provenance  # the copy lost it, not the network
    for have, want in zip(again.references, network.references, strict=True):
        np.testing.assert_array_equal(have["y"], want["y"])


@pytest.mark.parametrize("text", ["not json", "[1, 2]", '"text"'])
def test_provenance_that_is_no_table_counts_as_none(network: Network, text: str) -> None:
    network.model.metadata_props["edgewise"] = text
    assert network.provenance == {}


def test_the_same_stage_twice_gives_the_same_bytes(network: Network, calib: Path, tmp_path: Path) -> None:
    target = find_target("cpu")
    spec = target.quantization("int8", find_device(target.default_device, "cpu"))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_network(quantize_stage(network, QuantizeSettings(calib=str(calib)), spec), tmp_path / name)
    for file in ("model.onnx", "reference.npz"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_ranges_found_at_run_time_need_no_samples(network: Network) -> None:
    target = find_target("cpu")
    spec = target.quantization("w8d8", find_device(target.default_device, "cpu"))
    told = quantize_stage(network, QuantizeSettings(scheme="w8d8"), spec).provenance["quantize"]
    assert told["data"] is None and told["samples"] == 0
    assert "w8d8" in {layer["precision"] for layer in told["layers"]}
    for asking in ({"rounding": "gptq"}, {"analyze": True}, {"max_drop": 0.01, "judge": "d.npz"}):
        with pytest.raises(ToolchainError, match="needs calibration data"):
            quantize_stage(network, QuantizeSettings(scheme="w8d8", **asking), spec)


def test_reference_outputs_are_those_of_the_graph(tiny: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network = with_reference(read_network(tiny), None, None)
    session = onnxruntime.InferenceSession(str(tiny))
    assert len(network.samples) == 4
    for sample, outputs in zip(network.samples, network.references, strict=True):
        np.testing.assert_allclose(session.run(None, sample)[0], outputs["y"], rtol=1e-5, atol=1e-6)


def test_a_graph_that_does_not_state_its_interface_is_refused() -> None:
    with pytest.raises(ToolchainError, match="tensor 'x'"):
        tensor_spec(ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT)))


def test_outputs_are_chosen_by_name() -> None:
    arrays = {"a": np.zeros(1), "b": np.ones(1)}
    assert list(only(arrays, ["b"], "here")) == ["b"]
    with pytest.raises(ToolchainError, match="no output 'c' but a, b"):
        only(arrays, ["c"], "here")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("net.pth", ("", "net.pth", "")),
        ("nets/a.py:make", ("", "nets/a.py", ":make")),
        ("hf:folder/model", ("hf:", "folder/model", "")),
        ("timm:resnet18", ("timm:resnet18", "", "")),
        ("timm:vit_base.augreg", ("timm:vit_base.augreg", "", "")),
        ("package.module:make", ("package.module:make", "", "")),
    ],
)
def test_paths_are_found_in_texts(text: str, parts: tuple[str, str, str]) -> None:
    assert split_place(text) == parts


def test_moving_there_and_back_is_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    there = moved("data/x.npz", Path(), tmp_path / "a" / "b")
    assert there == "../../data/x.npz"
    back = moved(there, Path("a/b"), Path())
    assert back is not None
    assert os.path.normpath(back) == "data/x.npz"


def test_names_tell_nothing_of_folders() -> None:
    assert [place_name(text) for text in ("/home/me/n.pth", "a\\b.py:make", "dir/", "timm:x")] == [
        "n.pth",
        "b.py:make",
        "dir",
        "timm:x",
    ]


@pytest.mark.parametrize(
    ("source", "name"),
    [("a/net.pth", "net"), ("hf:models/mini", "mini"), ("m.opt.onnx", "m.opt"), ("folder/", "folder")],
)
def test_files_are_named_after_the_source(source: str, name: str) -> None:
    assert default_name(source) == name


def test_a_key_changes_with_everything_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = key_of("export", {"a": 1})
    assert first == key_of("export", {"a": 1})
    assert len({first, key_of("export", {"a": 2}), key_of("prune", {"a": 1})}) == 3
    monkeypatch.setattr("edgewise.stages.identity.versions", lambda: versions() | {"onnx": "0"})
    assert key_of("export", {"a": 1}) != first


def test_places_are_known_by_their_content_or_by_names_sizes_and_times(tmp_path: Path) -> None:
    file = tmp_path / "d.npz"
    file.write_bytes(b"one")
    before = place_digest(str(file))
    file.write_bytes(b"two")
    assert place_digest(str(file)) != before
    folder = place_digest(str(tmp_path))
    (tmp_path / "more").touch()
    assert place_digest(str(tmp_path)) != folder
    assert place_digest("timm:resnet18") == "timm:resnet18"
    assert place_digest(None) is None


@pytest.mark.parametrize(
    ("settings", "done", "threshold"),
    [
        (VerifySettings(), {}, 40.0),
        (VerifySettings(), {"quantize": {}}, 10.0),
        (VerifySettings(), {"prune": {}, "quantize": {}}, None),
        (VerifySettings(min_sqnr=25.0), {"prune": {}}, 25.0),
    ],
)
def test_thresholds(settings: VerifySettings, done: dict[str, object], threshold: float | None) -> None:
    assert source_threshold(settings, done) == threshold


@pytest.mark.parametrize(
    ("noise", "done", "threshold"),
    [
        (0.0, {}, 40.0),
        (0.0, {"quantize": {}}, 20.0),
        (0.01, {"quantize": {}}, 20.0),
        (0.25, {"quantize": {}}, 9.0),  # 12 dB from the source: 3 dB less is what another rounding may do
        (0.25, {"quantize": {}, "prune": {}}, 20.0),
    ],
)
def test_thresholds_of_a_build(network: Network, noise: float, done: dict[str, object], threshold: float) -> None:
    graph = OnnxRunner(network.model, optimize=False)
    # The source differs from the graph by `noise`; the engine is the graph itself.
    references = [{"y": graph.run(sample)["y"] / np.float32(1 - noise)} for sample in network.samples]
    changed = Network(network.model, network.samples, references).after(network.model, **done)
    parity = verify_engine(changed, Executor(graph.run, "the graph"), None)
    assert parity["against_onnx"]["min_sqnr_db"] == pytest.approx(threshold, abs=0.1)
    assert parity["against_onnx"]["passed"]


@pytest.mark.parametrize(("asked", "threshold"), [(25.0, 25.0), (60.0, 40.0)])
def test_who_allows_a_float_engine_less_allows_it_less_against_its_graph_too(
    network: Network, asked: float, threshold: float
) -> None:
    graph = OnnxRunner(network.model, optimize=False)
    coarse = Executor(lambda inputs: {"y": graph.run(inputs)["y"] * np.float32(1.03)}, "30 dB away")
    references = [graph.run(sample) for sample in network.samples]
    parity = verify_engine(Network(network.model, network.samples, references), coarse, asked)
    assert parity["against_onnx"]["min_sqnr_db"] == threshold
    assert parity["against_onnx"]["passed"] == (threshold == 25)
    assert parity["passed"] == (threshold == 25)
    if threshold == 40:
        assert "--min-sqnr" in parity["against_onnx"]["error"]["fix"]


def test_nan_holds_no_gate() -> None:
    """A comparison that is false for NaN would let it through the other way round."""
    assert accuracy_gates({"metric": "m", "value": float("nan"), "n": 1}, 0.1, None)
    assert accuracy_gates({"metric": "m", "value": float("nan"), "n": 1, "source_value": 0.5}, None, 0.1)
    four_of_400 = {"metric": "m", "value": 257 / 400, "n": 400, "source_value": 261 / 400}
    assert not accuracy_gates(four_of_400, 257 / 400, 0.01)
    assert accuracy_gates(four_of_400 | {"value": 256 / 400}, None, 0.01)
    assert not accuracy_gates({"metric": "m", "value": 0.45, "n": 1, "source_value": 0.5}, 0.4, 0.1)


def test_devices_go_to_the_targets_that_they_list() -> None:
    choices = match_devices(["cpu", "tensorrt", "coreml"], ["jetson-orin-nano", "iphone-15-pro"])
    assert [(c.target, c.device) for c in choices] == [
        ("cpu", "jetson-orin-nano"), ("tensorrt", "jetson-orin-nano"), ("coreml", "iphone-15-pro"),
    ]  # fmt: skip


def test_parameters_are_the_trained_tensors_alone(network: Network, calib: Path) -> None:
    trained = 8 * 27 + 8 + 5 * 8 + 5
    assert network_entry(network.model)["parameters"] == trained
    target = find_target("cpu")
    spec = target.quantization("int8", find_device(target.default_device, "cpu"))
    quantized = quantize_stage(network, QuantizeSettings(calib=str(calib)), spec).model
    assert network_entry(quantized)["parameters"] == trained  # no scales, no zero points
    assert all("scale" not in str(value.name) for value in weights_of(quantized))


def test_an_error_is_its_parts_its_sentence_and_its_code() -> None:
    error = GateFailedError(GateError("a", where="b", found="c", expected="d", fix="e"), {"value": 1})
    entry = json.loads(json.dumps(error_entry(error)))
    assert entry == {
        "what": "a", "where": "b", "found": "c", "expected": "d", "fix": "e", "exit_code": 1, "gate": True,
        "message": "a (b): found c; expected d. e.",
    }  # fmt: skip


def test_only_folders_that_were_made_meanwhile_are_removed(tmp_path: Path) -> None:
    old, new, full = tmp_path / "old", tmp_path / "new", tmp_path / "full"
    old.mkdir()
    with pytest.raises(KeyboardInterrupt), no_empty_folders(old, new, full):
        new.mkdir()
        full.mkdir()
        (full / "kept").touch()
        raise KeyboardInterrupt
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "old"]


def test_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name : X\nflags : fpu sse2 avx2 fma avx512_vnni\n")
    assert instructions(cpuinfo) == ["avx2", "fma", "avx512_vnni"]
    cpuinfo.write_text("Features\t: fp asimd asimddp i8mm\n")
    assert instructions(cpuinfo) == ["asimd", "asimddp", "i8mm"]
    assert instructions(tmp_path / "none") == []
    assert this_machine()["cores"] == os.cpu_count()


@pytest.mark.parametrize(
    ("script", "found"),
    [("echo 'NVIDIA Example, 8.9, 550.1'", ["NVIDIA Example, 8.9, 550.1"]), ("echo broken; exit 9", [])],
)
def test_gpus_are_read_from_the_driver_s_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, found: list[str]
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert gpus() == found


def test_a_recipe_without_changes_is_itself(tiny: Path) -> None:
    recipe = Recipe(source=str(tiny), quantize=QuantizeSettings())
    assert recipe.with_options({}) == recipe
    assert read_onnx(tiny).graph.name == "tiny"
