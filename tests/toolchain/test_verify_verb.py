"""``verify``, ``eval``, ``build`` and ``profile`` as verbs: against sources of every kind, and on networks that are wrong on purpose."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgewise
from edgewise.runtime.bundle import open_bundle
from edgewise.runtime.errors import GateError, RunError
from edgewise.runtime.onnx_file import read_onnx
from edgewise.runtime.onnx_runner import OnnxRunner


def chain(path: Path, *, spoil: str = "") -> Path:
    """x → three Conv with Relu → y; the weights of one can be spoiled."""
    random = np.random.default_rng(3)
    names = ["first", "second", "third"]
    nodes, weights, tensor = [], [], "x"
    for name in names:
        weight = random.normal(0, 0.3, (4, 4, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(-weight if name == spoil else weight, f"{name}.weight"))
        nodes.append(helper.make_node("Conv", [tensor, f"{name}.weight"], [f"{name}_out"], name=name, pads=[1] * 4))
        tensor = "y" if name == "third" else f"{name}_relu"
        nodes.append(helper.make_node("Relu", [f"{name}_out"], [tensor], name=f"{name}_act"))
    spec = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 6, 6]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "chain", spec[:1], spec[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.mark.parametrize("engine", ["onnxruntime", "native"])
@pytest.mark.parametrize("spoil", ["first", "second", "third"])
def test_per_layer_names_the_first_layer_that_diverges(tmp_path: Path, cli: Any, spoil: str, engine: str) -> None:
    good = chain(tmp_path / "good.onnx")
    edgewise.build(
        chain(tmp_path / "bad.onnx", spoil=spoil), tmp_path / "bad.edge", target="cpu", options={"engine": engine}
    )
    done = cli("verify", tmp_path / "bad.edge", "--against", good, "--per-layer", "--json")
    assert done.code == done.json["exit_code"] == 1
    assert done.json["parity"]["passed"] is False
    first = done.json["first_diverging"]
    # The engines merge Conv and Relu: what is left to compare is the pair's result.
    assert first["name"] in (f"{spoil}_out", f"{spoil}_relu", "y" if spoil == "third" else "")
    assert first["sqnr_db"] < 40


@pytest.mark.parametrize("engine", ["onnxruntime", "native"])
def test_per_layer_sees_through_integers(tiny: Path, calib: Path, tmp_path: Path, engine: str) -> None:
    edgewise.quantize(tiny, tmp_path / "q.onnx", target="cpu", calib=str(calib))  # type: ignore[operator]
    edgewise.build(tmp_path / "q.onnx", tmp_path / "q.edge", target="cpu", options={"engine": engine})
    result = edgewise.verify(tmp_path / "q.edge", against=tiny, data=str(calib), samples=3, per_layer=True)
    layers = {layer["name"]: layer for layer in result["layers"]}
    assert {"relu_out", "y"} <= set(layers)
    assert layers["relu_out"]["op"] == "Relu"
    assert 20 < layers["relu_out"]["sqnr_db"] < 80  # rounded, and right
    assert result["first_diverging"] is None
    assert result["samples"] == 3
    assert result["parity"]["min_sqnr_db"] == 10


def test_verify_by_itself_uses_the_reference(built: Path) -> None:
    result = edgewise.verify(built)
    assert result["parity"]["passed"]
    assert result["parity"]["min_sqnr_db"] == 40
    assert result["samples"] == len(open_bundle(built).reference()[0])


def test_verify_against_another_bundle_and_from_a_zip(built: Path, tmp_path: Path) -> None:
    zipped = shutil.make_archive(str(tmp_path / "tiny.edge"), "zip", built.parent, built.name)
    assert edgewise.verify(zipped, against=built)["parity"]["outputs"][0]["exact"]
    assert edgewise.inspect(zipped)["kind"] == "bundle"


def test_verify_against_a_network_with_other_outputs_is_an_error(built: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError):
        edgewise.verify(built, against=chain(tmp_path / "other.onnx"))


def test_a_wrong_engine_does_not_pass_its_own_build(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check that every build makes: an engine that computes something else is exit code 1."""
    from edgewise.targets import Executor, find_target

    wrong = Executor(lambda inputs: {"y": np.full((1, 5), 7.0, np.float32)}, "a wrong engine")
    monkeypatch.setattr(type(find_target("cpu")), "executor", lambda self, bundle: wrong)
    with pytest.raises(GateError, match="the outputs do not agree with the reference") as caught:
        edgewise.build(tiny, tmp_path / "wrong.edge", target="cpu")
    assert caught.value.result["parity"]["passed"] is False  # type: ignore[attr-defined]
    assert open_bundle(tmp_path / "wrong.edge").manifest["parity"]["how"] == "a wrong engine"


def test_eval_measures_onnx_and_bundles_alike(tiny: Path, built: Path, calib: Path, tmp_path: Path, cli: Any) -> None:
    arrays = np.load(calib)
    values = []
    for network in (tiny, built):
        done = cli("eval", network, "--data", calib, "--json")
        assert set(done.json) >= {"schema_version", "metric", "value", "n", "how"}
        values.append(done.json["value"])
    assert values[0] == values[1]
    top5 = cli("eval", tiny, "--data", calib, "--metric", "top5", "--json").json
    assert (top5["metric"], top5["value"], top5["n"]) == ("top5", 1.0, len(arrays["label"]))
    (tmp_path / "own.py").write_text("def half(outputs, sample):\n    return 0.5\n")
    assert cli("eval", tiny, "--data", calib, "--metric", f"{tmp_path}/own.py:half", "--json").json["value"] == 0.5
    assert cli("eval", tiny, "--data", calib, "--limit", "5", "--json").json["n"] == 5


def test_agreement_wants_no_labels(tiny: Path, built: Path, calib: Path, cli: Any, tmp_path: Path) -> None:
    x = np.load(calib)["x"]
    np.savez(tmp_path / "plain.npz", x=x)
    options = ("--data", tmp_path / "plain.npz", "--metric", "agreement")
    assert "Add labels, or use --metric agreement" in cli("eval", built, "--data", tmp_path / "plain.npz").err
    assert "--against" in cli("eval", built, *options).err
    done = cli("eval", built, *options, "--against", tiny, "--max-drop", "1", "--json").json
    source, model = OnnxRunner(read_onnx(tiny), optimize=False), edgewise.load(built)
    alike = [source.run({"x": each[None]})["y"].argmax() == model.run({"x": each[None]})["y"].argmax() for each in x]
    assert (done["value"], done["source_value"], done["n"]) == (np.mean(alike), 1.0, len(x))


@pytest.mark.parametrize(
    ("option", "limit", "code"), [("--min-accuracy", "1.0", 1), ("--min-accuracy", "0.0", 0), ("--max-drop", "0.0", 0)]
)
def test_gates_of_eval(tiny: Path, built: Path, calib: Path, cli: Any, option: str, limit: str, code: int) -> None:
    done = cli("eval", built, "--data", calib, "--against", tiny, option, limit, "--json")
    assert done.code == code
    assert done.json["n"] == 24  # the numbers are there, whether the gate holds or not


def test_a_drop_without_a_source_is_refused(built: Path, calib: Path, cli: Any) -> None:
    done = cli("eval", built, "--data", calib, "--max-drop", "0.1")
    assert done.code == 1
    assert "cannot be checked" in done.err


def test_results_are_written_where_the_report_finds_them(built: Path, calib: Path, tmp_path: Path, cli: Any) -> None:
    copy = shutil.copytree(built, tmp_path / "tiny.edge")
    assert cli("profile", copy, "--runs", "5", "--warmup", "0", "-o", tmp_path / "p.json").code == 0
    assert cli("eval", copy, "--data", calib, "-o", tmp_path / "e.json").code == 0
    assert cli("verify", copy, "--against", built, "-o", tmp_path / "v.json").code == 0
    assert cli("report", tmp_path).code == 0
    page = (tmp_path / "report.html").read_text()
    for words in ("Latency, warm runs", "Accuracy", "Verified against"):
        assert words in page


def test_a_latency_budget(built: Path, cli: Any) -> None:
    done = cli("profile", built, "--runs", "5", "--warmup", "0", "--max-latency-ms", "0.0000001", "--json")
    assert done.code == 1
    assert done.json["latency_ms"]["median"] > 0
    assert "the network is too slow" in done.json["error"]["message"]


@pytest.mark.slow
def test_a_checkpoint_all_the_way(tmp_path: Path, cli: Any) -> None:
    """Export, verify and eval a state dict with an architecture from a file; the bundle against the checkpoint."""
    import torch

    (tmp_path / "arch.py").write_text(
        "import torch\n\ndef make(width):\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(3, width, 3), torch.nn.BatchNorm2d(width), torch.nn.ReLU(),\n"
        "        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(width, 5))\n"
    )
    scope: dict[str, Any] = {}
    exec((tmp_path / "arch.py").read_text(), scope)  # noqa: S102
    torch.manual_seed(0)
    torch.save(scope["make"](6).state_dict(), tmp_path / "net.pth")
    random = np.random.default_rng(0)
    data = tmp_path / "d.npz"
    np.savez(data, x=random.normal(size=(10, 3, 8, 8)).astype(np.float32), label=random.integers(0, 5, 10))
    source = ["--arch", f"{tmp_path}/arch.py:make", "--arch-arg", "width=6", "--input", "x=f32[1,3,8,8]"]
    exported = cli("export", tmp_path / "net.pth", "-o", tmp_path / "net.onnx", *source, "--data", data, "--json")
    assert exported.code == 0, exported.err
    assert exported.json["parity"]["outputs"][0]["sqnr_db"] > 80
    engine = ["--target", "cpu", "--engine", "onnxruntime"]
    assert cli("build", tmp_path / "net.onnx", "-o", tmp_path / "net.edge", *engine).code == 0
    verified = cli(
        "verify",
        tmp_path / "net.edge",
        "--against",
        tmp_path / "net.pth",
        *source,
        "--data",
        data,
        "--per-layer",
        "--json",
    )
    assert verified.code == 0, verified.err
    assert verified.json["samples"] == 10
    assert verified.json["layers"]
    assert open_bundle(tmp_path / "net.edge").manifest["source"]["file"] == "net.pth"  # it travelled inside the ONNX
    before = cli("eval", tmp_path / "net.pth", "--data", data, *source, "--json").json
    after = cli("eval", tmp_path / "net.edge", "--data", data, "--json").json
    assert (before["value"], before["n"]) == (after["value"], after["n"])
    inspected = cli("inspect", tmp_path / "net.pth", *source, "--json").json
    assert inspected["kind"] == "state_dict"
    assert inspected["network"]["macs"] == 6 * 36 * 27 + 6 * 5
    whole = cli("convert", tmp_path / "net.pth", *source, "-o", tmp_path / "out", *engine, "--json")
    assert whole.code == 0, whole.err
    from edgewise.stages.profile import engine_digests

    engines = [
        engine_digests(open_bundle(path).manifest)
        for path in (tmp_path / "net.edge", tmp_path / "out" / "net-cpu.edge")
    ]
    assert engines[0] == engines[1]  # the single verbs and convert make the same engine
