"""``--max-drop`` with data to judge by: layers go back until the metric holds, and the data is never that of the calibration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

Cli = Callable[..., Any]


@pytest.fixture
def judge(tiny: Path, tmp_path: Path) -> Path:
    """Samples that the float network gets right, every one, by a small margin: labelled by itself."""
    session = onnxruntime.InferenceSession(tiny)
    random = np.random.default_rng(7)
    samples = (random.normal(size=(400, 3, 8, 8)) + 2 * random.normal(size=(400, 3, 1, 1))).astype(np.float32)
    scores = np.concatenate([session.run(None, {"x": sample[None]})[0] for sample in samples])
    near = np.argsort(np.diff(np.sort(scores, axis=1)[:, -2:])[:, 0])[:60]
    path = tmp_path / "judge.npz"
    np.savez(path, x=samples[near], label=scores[near].argmax(axis=1))
    return path


def correct(model: Path, judge: Path) -> float:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options)
    with np.load(judge) as data:
        right = [
            session.run(None, {"x": x[None]})[0].argmax() == label
            for x, label in zip(data["x"], data["label"], strict=True)
        ]
    return float(np.mean(right))


def test_layers_go_back_until_the_metric_holds(cli: Cli, tiny: Path, calib: Path, judge: Path, tmp_path: Path) -> None:
    common = (tiny, "-o", tmp_path / "q.onnx", "--target", "null", "--scheme", "w3", "--calib", calib, "--json")
    assert cli("quantize", *common).code == 0
    plain = correct(tmp_path / "q.onnx", judge)
    assert plain < 0.95
    allowed = 0.9 * (1 - plain)
    done = cli("quantize", *common, "--judge", judge, "--max-drop", allowed)
    assert done.code == 0, done.err
    search = done.json["report"]["search"]
    assert search["float_metric"] == 1 and search["trials"][0]["metric"] == pytest.approx(plain)
    assert correct(tmp_path / "q.onnx", judge) >= 1 - allowed
    precisions = {row["name"]: row.get("weight_bits") for row in done.json["report"]["layers"]}
    assert sorted(precisions.values(), key=str) != [3, 3]
    np.savez(tmp_path / "plain.npz", x=np.load(judge)["x"])
    alike = cli("quantize", *common, "--judge", tmp_path / "plain.npz", "--metric", "agreement", "--max-drop", allowed)
    assert alike.json["report"]["search"] == search, "the labels were the float network's own classes"


def test_what_was_tried_is_printed(cli: Cli, tiny: Path, calib: Path, judge: Path, tmp_path: Path) -> None:
    done = cli(
        "quantize", tiny, "-o", tmp_path / "q.onnx", "--target", "cpu", "--calib", calib, "--judge", judge, "--max-drop", 1
    )  # fmt: skip
    assert done.code == 0 and "What was tried; the float network has 1.0000" in done.out


@pytest.mark.parametrize("given", ["nothing", "the same"])
def test_calibration_data_does_not_judge(cli: Cli, tiny: Path, calib: Path, tmp_path: Path, given: str) -> None:
    judging = ["--judge", calib] if given == "the same" else []
    done = cli(
        "quantize", tiny, "-o", tmp_path / "q.onnx", "--target", "cpu", "--calib", calib, "--max-drop", 0.1, *judging
    )
    assert done.code == 2 and not (tmp_path / "q.onnx").exists()
    assert "cannot keep to the allowed drop" in done.err and "Pass --judge DATA" in done.err
    assert ("the calibration data again" if judging else "no data to judge by") in done.err


def test_a_conversion_judges_too(cli: Cli, tiny: Path, calib: Path, judge: Path, tmp_path: Path) -> None:
    done = cli(
        "convert", tiny, "-o", tmp_path / "out", "--target", "null", "--calib", calib, "--scheme", "int8",
        "--judge", judge, "--max-drop", 0.5, "--data", calib, "--json",
    )  # fmt: skip
    assert done.code in (0, 1), done.err
    recipe = next((tmp_path / "out").rglob("recipe.yaml")).read_text(encoding="utf-8")
    assert "max_drop: 0.5" in recipe and "judge: " in recipe


def test_a_budget_gives_8_bits_to_what_fits(cli: Cli, tiny: Path, calib: Path, tmp_path: Path) -> None:
    common = ("quantize", tiny, "-o", tmp_path / "q.onnx", "--target", "cpu", "--scheme", "w4a8", "--calib", calib)
    sizes = {"conv": 216, "head": 40}  # weights; 4 bits each take half of the bytes
    done = cli(*common, "--max-bytes", 128 + 30, "--json")
    assert done.code == 0, done.err
    budget = done.json["report"]["budget"]
    assert budget == {"max_bytes": 158, "weight_bytes": 148, "widened": ["head"]} and sum(sizes.values()) == 256
    assert "148 B of 158 B" in cli(*common, "--max-bytes", 158).out
    refused = cli(*common, "--max-bytes", 158, "--max-drop", 0.1, "--judge", calib)
    assert refused.code == 2 and "cannot keep to a drop and to a budget at once" in refused.err
