"""``inspect`` on every kind of network, and ``prune`` with what it changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgewise
from edgewise.recipe import Recipe
from edgewise.runtime.bundle import open_bundle
from edgewise.targets.cpu.host import host_device


def wide(path: Path, dim: int | str = 2) -> Path:
    """x [dim,64] → MatMul 64x32, Relu, MatMul 32x16 → y."""
    random = np.random.default_rng(5)
    shapes = {"a": (64, 32), "b": (32, 16)}
    weights = [
        numpy_helper.from_array(random.normal(0, 0.2, shape).astype(np.float32), name) for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["t"], name="first"),
        helper.make_node("Relu", ["t"], ["u"], name="act"),
        helper.make_node("MatMul", ["u", "b"], ["y"], name="second"),
    ]
    spec = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [dim, size]) for name, size in (("x", 64), ("y", 16))
    ]
    graph = helper.make_graph(nodes, "wide", spec[:1], spec[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_inspect_onnx(tiny: Path, cli: Any) -> None:
    result = cli("inspect", tiny, "--json").json
    assert result["kind"] == "onnx"
    assert result["inputs"][0]["shape"] == [1, 3, 8, 8]
    assert result["network"]["ops"] == {"Conv": 1, "Relu": 1, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}
    assert result["network"]["macs"] == 8 * 64 * 27 + 8 * 5
    assert result["network"]["weight_dtypes"] == {"FLOAT": 8 * 27 + 8 + 8 * 5 + 5}
    assert [layer["density"] for layer in result["sparsity"]["layers"]] == [1.0, 1.0]
    assert {"cpu", "coreml", "tensorrt", "null"} <= set(result["targets"])
    assert result["targets"]["cpu"] == {"device": host_device(), "taken": 5, "total": 5, "refused": []}
    assert list(cli("inspect", tiny, "--target", "null", "--json").json["targets"]) == ["null"]


def test_inspect_says_what_it_took_dynamic_dims_for(tmp_path: Path, cli: Any) -> None:
    path = wide(tmp_path / "m.onnx", "batch")
    result = cli("inspect", path, "--dynamic", "7", "--json").json
    assert result["inputs"][0]["symbolic"] == ["batch"]
    assert result["network"]["macs"] == 7 * (64 * 32 + 32 * 16)
    assert result["network"]["macs_assumed"] == {"batch": 7}
    assert "batch=1 assumed" in cli("inspect", path).out


def test_inspect_a_bundle(built: Path, cli: Any) -> None:
    result = cli("inspect", built, "--json").json
    assert (result["kind"], result["target"], result["device"]) == ("bundle", "cpu", host_device())
    assert result["size_bytes"] == open_bundle(built).size_bytes
    text = cli("inspect", built).out
    for words in ("5 of 5 nodes", "Engine against the source", "13.86 k", "x: float32[1, 3, 8, 8]"):
        assert words in text


@pytest.mark.parametrize("dim", [3, "batch"])
def test_inspect_tells_what_memory_libedgewise_takes(dim: int | str, tmp_path: Path, cli: Any) -> None:
    pytest.importorskip("edgewise.runtime._native")
    path = wide(tmp_path / "net.onnx", dim)
    assert cli("build", path, "-o", tmp_path / "net.edge", "--target", "cpu", "--engine", "native").code == 0
    memory = cli("inspect", tmp_path / "net.edge", "--json").json["memory"]
    text = cli("inspect", tmp_path / "net.edge").out
    if dim == 3:
        assert memory["weights_bytes"] >= 4 * (64 * 32 + 32 * 16)
        # While a layer is computed its input and output are there; the network's own are there all the time.
        assert 4 * 3 * (64 + 32 + 16) <= memory["least_arena_bytes"] <= memory["arena_bytes"]
        assert "above the most that is alive at once" in text
    else:
        assert list(memory) == ["not_known"]
        assert "not known" in text


def test_inspect_tells_refused_nodes_with_reasons(tmp_path: Path, cli: Any) -> None:
    node = helper.make_node("Frobnicate", ["x"], ["y"], name="odd_one", domain="example.org")
    spec = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("example.org", 1)]
    graph = helper.make_graph([node], "g", spec[:1], spec[1:])
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "odd.onnx")
    done = cli("inspect", tmp_path / "odd.onnx", "--json")
    assert done.code == 0, done.err
    for entry in done.json["targets"].values():
        if entry["refused"]:
            assert entry["refused"][0]["node"] == "odd_one"
            assert entry["refused"][0]["reason"]
    assert done.json["targets"]["cpu"]["taken"] == 0


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "block:4x1"])
def test_prune_says_what_it_did_and_what_it_changed(tmp_path: Path, cli: Any, pattern: str) -> None:
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(6, 2, 64)).astype(np.float32))
    path = wide(tmp_path / "m.onnx")
    done = cli(
        "prune",
        path,
        "-o",
        tmp_path / "p.onnx",
        "--pattern",
        pattern,
        "--sparsity",
        "0.5",
        "--calib",
        tmp_path / "d.npz",
        "--json",
    )
    assert done.code == 0, done.err
    (layer,) = done.json["report"]["layers"]
    assert layer["name"] == "second"
    assert layer["density"] == pytest.approx(0.5)
    assert [entry["node"] for entry in done.json["report"]["refused"]] == ["first"]  # it reads the network's input
    assert 0 < done.json["parity"][0]["sqnr_db"] < 40
    found = {entry["name"]: entry for entry in cli("inspect", tmp_path / "p.onnx", "--json").json["sparsity"]["layers"]}
    assert found["second"]["density"] == pytest.approx(0.5)
    assert found["second"]["pattern"] == pattern
    text = cli("prune", path, "-o", tmp_path / "p.onnx", "--pattern", pattern, "--sparsity", "0.5").out
    assert "Left alone" in text and "50.00 % asked for" in text


def test_a_pruned_network_all_the_way(tmp_path: Path) -> None:
    """It is reported how far it is from the source, and only the engine's own faithfulness is gated."""
    path = wide(tmp_path / "m.onnx")
    recipe = Recipe(export=None, profile=None)
    options = {"prune.pattern": "2:4", "prune.sparsity": 0.5}
    result = edgewise.convert(path, tmp_path / "out", target="cpu", recipe=recipe, options=options)
    (cpu,) = result["targets"]
    assert cpu["exit_code"] == 0
    assert cpu["parity"]["min_sqnr_db"] is None
    assert 0 < cpu["parity"]["outputs"][0]["sqnr_db"] < 40
    assert cpu["parity"]["against_onnx"]["min_sqnr_db"] == 40
    manifest = open_bundle(cpu["bundle"]).manifest
    assert manifest["sparsity"]["prune"]["pattern"] == "2:4"
    assert [layer["pattern"] for layer in manifest["sparsity"]["layers"]] == [None, "2:4"]
    verified = edgewise.verify(cpu["bundle"], against=path)
    assert verified["parity"]["passed"]
    assert "2:4 sparse" in Path(result["report"]).read_text()


@pytest.mark.parametrize(("pattern", "sparsity"), [("2:5", "0.5"), ("blocks", "0.5"), ("2:4", "0.9")])
def test_a_pattern_that_is_not_there_is_refused(tmp_path: Path, cli: Any, pattern: str, sparsity: str) -> None:
    done = cli(
        "prune", wide(tmp_path / "m.onnx"), "-o", tmp_path / "p.onnx", "--pattern", pattern, "--sparsity", sparsity
    )
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "p.onnx").exists()


def test_prune_by_what_the_layers_read(tmp_path: Path, cli: Any) -> None:
    """The same samples, first by magnitude, then second order with measured densities: the second changes less."""
    random = np.random.default_rng(0)
    mixed = random.normal(size=(64, 8)) @ random.normal(size=(8, 64))
    np.savez(tmp_path / "d.npz", x=(random.normal(size=(40, 2, 64)) @ mixed).astype(np.float32))
    path, words = (
        wide(tmp_path / "m.onnx"),
        ("--pattern", "block:4x1", "--sparsity", "0.5", "--calib", tmp_path / "d.npz"),
    )
    plain = cli("prune", path, "-o", tmp_path / "p.onnx", *words, "--json").json
    more = ("--criterion", "second_order", "--densities", "sensitivity", "--samples", "32")
    done = cli("prune", path, "-o", tmp_path / "q.onnx", *words, *more, "--json")
    assert done.code == 0, done.err
    assert done.json["report"]["samples"] == 32
    assert done.json["report"]["calib"] == "d.npz"
    assert done.json["parity"][0]["sqnr_db"] > plain["parity"][0]["sqnr_db"] + 3
    assert "second_order" in cli("prune", path, "-o", tmp_path / "q.onnx", *words, *more).out


def test_a_criterion_that_needs_data_says_so(tmp_path: Path, cli: Any) -> None:
    words = ("--pattern", "2:4", "--sparsity", "0.5", "--criterion", "wanda")
    done = cli("prune", wide(tmp_path / "m.onnx"), "-o", tmp_path / "p.onnx", *words)
    assert done.code == 2
    assert "Pass --calib DATA" in done.err


def test_convert_prunes_by_the_calibration_data_of_quantization(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(32, 2, 64)).astype(np.float32))
    options = {
        "prune.pattern": "2:4", "prune.sparsity": 0.5, "prune.criterion": "second_order",
        "quantize.calib": str(tmp_path / "d.npz"),
    }  # fmt: skip
    recipe = Recipe(export=None, profile=None)
    result = edgewise.convert(wide(tmp_path / "m.onnx"), tmp_path / "out", target="cpu", recipe=recipe, options=options)
    (cpu,) = result["targets"]
    found = open_bundle(cpu["bundle"]).manifest["sparsity"]
    told = found["prune"]
    assert (told["criterion"], told["samples"], told["calib"]) == ("second_order", 32, "d.npz")
    assert [layer["pattern"] for layer in found["layers"]] == [None, "2:4"]  # int8, and still 2:4
