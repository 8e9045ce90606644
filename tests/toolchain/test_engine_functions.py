"""From a recipe to a bundle whose engine computes several things, or one size alone: verified, read back, and built again when a file changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgewise
from edgewise.runtime.bundle import open_bundle
from edgewise.runtime.errors import GateError, RunError

WEIGHT = np.random.default_rng(2).standard_normal((8, 8)).astype(np.float32)
RECIPE = """
source: net.onnx
export: null
profile: null
targets: [{target: coreml, device: iphone-16-pro}]
build: {options: {functions: {decode: {dims: {rows: 1}}, prompt: {dims: {rows: 4}}, relu: {model: other/relu.onnx}}}}
"""


def write(path: Path, op: str, rows: int | str) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node(op, ["a"], ["y"])]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, 8]) for name in "xy"]
    graph = helper.make_graph(nodes, "net", infos[:1], infos[1:], [numpy_helper.from_array(WEIGHT, "w")])
    path.parent.mkdir(exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "net.onnx", "Tanh", "rows")
    write(tmp_path / "other" / "relu.onnx", "Relu", 3)
    (tmp_path / "r.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


@pytest.mark.slow
def test_functions_from_a_recipe(folder: Path) -> None:
    made = edgewise.convert(None, recipe=folder / "r.yaml", output=folder / "out")
    (entry,) = made["targets"]
    bundle = open_bundle(entry["bundle"])
    assert bundle.inputs[0].shape == (1, 8)
    assert {name: own.inputs[0].shape for name, own in bundle.functions.items()} == {"prompt": (4, 8), "relu": (3, 8)}
    verdicts = bundle.manifest["parity"]["functions"]
    assert {name: verdict["passed"] for name, verdict in verdicts.items()} == {"prompt": True, "relu": True}
    assert all(entry["sqnr_db"] > 50 for verdict in verdicts.values() for entry in verdict["outputs"])
    told = edgewise.verify(entry["bundle"])["functions"]
    assert {name: verdict["passed"] for name, verdict in told.items()} == {"prompt": True, "relu": True}
    with pytest.raises(RunError, match="one of prompt, relu"):
        edgewise.profile(entry["bundle"], function="prompts")
    # The recipe in the bundle finds the other graph from where it lies.
    again = edgewise.convert(None, recipe=Path(entry["bundle"]) / "recipe.yaml", output=folder / "again")
    assert open_bundle(again["targets"][0]["bundle"]).manifest["engine"] == bundle.manifest["engine"]
    # Another graph in the same file is another build.
    write(folder / "other" / "relu.onnx", "Abs", 3)
    changed = edgewise.convert(None, recipe=folder / "r.yaml", output=folder / "out")["targets"][0]
    assert not {stage["stage"]: stage["reused"] for stage in changed["stages"]}["build"]
    assert {layer["op"] for layer in open_bundle(changed["bundle"]).manifest["engine"]["layers"]} >= {"tanh", "abs"}


@pytest.mark.slow
def test_one_size_alone(folder: Path) -> None:
    edgewise.build(folder / "net.onnx", folder / "net.edge", target="coreml", options={"dims": {"rows": 5}})
    bundle = open_bundle(folder / "net.edge")
    assert (bundle.inputs[0].shape, bundle.outputs[0].shape) == ((5, 8), (5, 8))
    assert {sample["x"].shape for sample in bundle.reference()[0]} == {(5, 8)}
    assert "none of the source's" in bundle.manifest["parity"]["reference"]


@pytest.mark.slow
def test_a_function_that_computes_something_else(folder: Path) -> None:
    edgewise.convert(None, recipe=folder / "r.yaml", output=folder / "out")
    from edgewise.runtime.bundle import save_reference, seal

    bundle = open_bundle(next((folder / "out").glob("*.edge")))
    samples, references = bundle.reference("relu")
    save_reference(bundle.path / "functions" / "relu.npz", samples, [{"y": -made["y"]} for made in references])
    seal(bundle.path, bundle.manifest)
    with pytest.raises(GateError, match="the function 'relu'"):
        edgewise.verify(bundle.path)
