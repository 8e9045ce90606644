"""``--floor``: a noisy small layer goes back to float by default where the target asks for it, and the user reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def uneven(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network with an offset before its last layer, whose weights sum to nothing: it costs the head its steps."""
    model = onnx.load(tiny)
    weights = next(each for each in model.graph.initializer if each.name == "head.weight")
    array = onnx.numpy_helper.to_array(weights)
    weights.CopyFrom(onnx.numpy_helper.from_array(array - array.mean(axis=1, keepdims=True), "head.weight"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(10.0, dtype=np.float32), "offset"))
    head = next(node for node in model.graph.node if node.name == "head")
    model.graph.node.remove(head)
    model.graph.node.append(onnx.helper.make_node("Add", ["flat_out", "offset"], ["far_out"], name="far"))
    model.graph.node.append(head)
    model.graph.node[-1].input[0] = "far_out"
    path = tmp_path_factory.mktemp("uneven") / "uneven.onnx"
    onnx.save(model, path)
    return path


def test_by_default_where_the_target_asks_for_it(cli: Cli, uneven: Path, calib: Path, tmp_path: Path) -> None:
    common = ("quantize", uneven, "-o", tmp_path / "q.onnx", "--calib", calib)
    done = cli(*common, "--target", "tensorrt")
    assert done.code == 0, done.err
    told = " ".join((done.out + done.err).split())
    assert "1 of 2 layers (0.3% of the multiply-accumulates) stay in float" in told
    assert "less than the floor of 35" in told
    kept = cli(*common, "--target", "tensorrt", "--json").json["report"]["kept_float"]
    assert [entry["node"] for entry in kept if "noise" in entry["reason"]] == ["head"]
    for options in (
        ("--target", "tensorrt", "--floor", 0),
        ("--target", "tensorrt", "--float-share", 0),
        ("--target", "null"),
    ):
        report = cli(*common, *options, "--json").json["report"]
        assert "spared" not in report and not report["kept_float"], options


def test_a_conversion_says_it_too(cli: Cli, uneven: Path, calib: Path, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("export: null\nprofile: null\nquantize: {floor: 35}\n", encoding="utf-8")
    common = (
        "convert",
        uneven,
        "-o",
        tmp_path / "out",
        "--recipe",
        tmp_path / "r.yaml",
        "--target",
        "null",
        "--calib",
        calib,
    )
    done = cli(*common, "--json")
    assert done.code == 0, done.err
    (note,) = [note for note in done.json["targets"][0]["notes"] if "stay in float" in note]
    manifest = json.loads((tmp_path / "out" / "uneven-null.edge" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["quantization"]["spared"]["told"] == note
    assert manifest["quantization"]["spared"]["layers"] == ["head"]
