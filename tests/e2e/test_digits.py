"""What ``make demo`` does, against stored numbers, and the training that made the shipped checkpoints."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.e2e]
Cli = Callable[..., dict[str, Any]]

_ROOT = Path(__file__).resolve().parents[2]
_DIGITS = "examples/digits"
# Correct answers of 450 that the shipped checkpoints give in float, and the fewest that any int8 engine may give.
_CORRECT = {"cnn": (448, 446), "vit": (439, 437)}


@pytest.fixture(scope="module", params=_CORRECT)
def converted(
    request: pytest.FixtureRequest, cli_here: Cli, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("demo")
    return cli_here("convert", "--recipe", f"{_DIGITS}/{request.param}.yaml", "-o", folder)


def test_a_shipped_checkpoint_becomes_three_engines(converted: dict[str, Any]) -> None:
    before, after = _CORRECT[converted["name"]]
    assert [built["target"] for built in converted["targets"]] == ["cpu", "coreml", "tensorrt"]
    for built in converted["targets"]:
        assert built["exit_code"] == 0, built
        assert built["parity"]["passed"]
        assert built["accuracy"]["n"] == 450
        assert round(built["accuracy"]["source_value"] * 450) == before
        assert round(built["accuracy"]["value"] * 450) >= after
        manifest = json.loads((Path(built["bundle"]) / "manifest.json").read_text(encoding="utf-8"))
        assert manifest["quantization"]["layers"]


def test_the_cpu_engine_is_profiled_and_all_of_it_reported(converted: dict[str, Any]) -> None:
    profile = json.loads(
        Path(converted["targets"][0]["bundle"]).with_suffix(".profile.json").read_text(encoding="utf-8")
    )
    latency = profile["latency_ms"]
    assert 0 < latency["min"] <= latency["median"] <= latency["p90"] <= latency["p99"]
    assert profile["layers"]
    page = Path(converted["report"]).read_text(encoding="utf-8")
    for built in converted["targets"]:
        assert Path(built["bundle"]).stem in page


def test_eval_says_before_and_after_what_convert_said(converted: dict[str, Any], cli_here: Cli) -> None:
    name, data = converted["name"], f"{_DIGITS}/data.py:test"
    architecture = ["--arch", f"{_DIGITS}/model.py:{name}", "--input", "image=f32[1,1,8,8]"]
    before = cli_here("eval", f"{_DIGITS}/{name}.pth", *architecture, "--data", data)
    after = cli_here("eval", converted["targets"][0]["bundle"], "--data", data)
    accuracy = converted["targets"][0]["accuracy"]
    assert (before["metric"], before["n"], before["value"]) == ("top1", 450, accuracy["source_value"])
    assert (after["metric"], after["n"], after["value"]) == ("top1", 450, accuracy["value"])


def test_a_gate_that_does_not_hold_exits_with_1(
    converted: dict[str, Any], refused: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = refused(
        "eval", converted["targets"][0]["bundle"], "--data", f"{_DIGITS}/data.py:test", "--min-accuracy", "0.999"
    )
    assert done.returncode == 1
    assert "accuracy" in done.stderr
    assert "Traceback" not in done.stderr


def test_training_makes_a_checkpoint_as_good_as_the_shipped_one(tmp_path: Path) -> None:
    command = [sys.executable, f"{_DIGITS}/train.py", "--network", "cnn", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("accuracy ")[1].split("%")[0]) >= 98
    assert (tmp_path / "cnn.pth").stat().st_size <= 500_000


@pytest.mark.parametrize("name", _CORRECT)
def test_the_shipped_checkpoints_are_small(name: str) -> None:
    assert (_ROOT / _DIGITS / f"{name}.pth").stat().st_size <= 500_000
