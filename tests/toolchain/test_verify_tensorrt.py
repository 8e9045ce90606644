"""``verify`` of TensorRT bundles: layer by layer on the graph that stands in, and the precision that was read back from the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper

import edgewise
from edgewise.runtime.bundle import open_bundle, seal


@pytest.fixture
def built(tiny: Path, tmp_path: Path) -> Path:
    edgewise.build(tiny, tmp_path / "t.edge", target="tensorrt")
    return tmp_path / "t.edge"


def test_layers_are_compared_with_float16_rounding(built: Path, tiny: Path) -> None:
    result = edgewise.verify(built, against=tiny, per_layer=True)
    layers = {layer["name"]: layer for layer in result["layers"]}
    assert {"relu_out", "y"} <= set(layers) and result["first_diverging"] is None
    assert 50 < layers["relu_out"]["sqnr_db"] < 90 and "was not run" in result["how"]


def test_the_first_layer_that_diverges_is_named(built: Path, tiny: Path, tmp_path: Path, cli: Any) -> None:
    other = onnx.load(tiny)
    weight = next(tensor for tensor in other.graph.initializer if tensor.name == "head.weight")
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), "head.weight"))
    onnx.save(other, tmp_path / "other.onnx")
    done = cli("verify", built, "--against", tmp_path / "other.onnx", "--per-layer", "--json")
    assert done.code == 1 and done.json["first_diverging"]["name"] == "y"


def test_a_precision_that_did_not_happen_is_exit_code_1(built: Path, cli: Any) -> None:
    """As an engine that was kept on the device with --allow-other-precision."""
    assert cli("verify", built).code == 0
    manifest = open_bundle(built).manifest
    manifest["engine"]["proof"]["not_as_asked"] = [
        {"node": "conv", "op": "Conv", "asked": "int8", "found": "float16"},
        "head (Int8 asked, FP16 found)",
    ]
    seal(built, manifest)
    done = cli("verify", built)
    assert done.code == 1
    for part in (
        "in the precision that was asked for",
        "conv (int8 asked, float16 found); head (Int8 asked",
        "expected each product",
        "Build it again",
    ):
        assert part in " ".join(done.err.split()), part
    manifest["engine"]["settings"]["allow_other_precision"] = True
    seal(built, manifest)
    assert cli("verify", built).code == 0, "the build was told to keep such an engine"
