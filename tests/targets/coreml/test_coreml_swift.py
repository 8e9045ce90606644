"""The Swift package of a bundle: what is in it, that its samples are the bundle's, and that Swift's grammar takes every file."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgewise.errors import ToolchainError
from edgewise.runtime.bundle import Bundle, open_bundle, save_reference
from edgewise.runtime.core_ml_ports import Port
from edgewise.runtime.errors import RunError
from edgewise.runtime.onnx_file import to_bytes
from edgewise.runtime.preprocess import Preprocess
from edgewise.targets.coreml import TARGET
from edgewise.targets.coreml.swift.code import swift_type
from edgewise.verbs.build import build

PREPROCESS = "resize=10,crop=8,color=bgr,scale=255,mean=0.5:0.4:0.3,std=0.2"


def network() -> ir.Model:
    """An image to scores; names that Swift and Core ML do not take as they are."""
    nodes = [
        helper.make_node("Conv", ["in", "w"], ["c"], name="conv"),
        helper.make_node("ReduceMean", ["c"], ["class.scores"], name="mean", axes=[2, 3], keepdims=0),
        helper.make_node("ArgMax", ["class.scores"], ["best"], name="best", axis=1, keepdims=0),
    ]
    weight = np.random.default_rng(0).standard_normal((5, 3, 3, 3)).astype(np.float32)
    image = helper.make_tensor_value_info("in", TensorProto.FLOAT, [1, 3, 8, 8])
    outputs = [
        helper.make_tensor_value_info("class.scores", TensorProto.FLOAT, [1, 5]),
        helper.make_tensor_value_info("best", TensorProto.INT64, [1]),
    ]
    graph = helper.make_graph(nodes, "g", [image], outputs, [numpy_helper.from_array(weight, "w")])
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path]:
    """A bundle ``my-net.v2.edge`` and its Swift package."""
    folder = tmp_path_factory.mktemp("swift")
    (folder / "m.onnx").write_bytes(to_bytes(network(), "m"))
    build(
        folder / "m.onnx", folder / "my-net.v2.edge", target="coreml", preprocess=PREPROCESS, swift=folder / "package"
    )
    return open_bundle(folder / "my-net.v2.edge"), folder / "package"


def test_what_is_in_it(written: tuple[Bundle, Path]) -> None:
    bundle, package = written
    assert ".iOS(.v17), .macOS(.v14)" in (package / "Package.swift").read_text()
    model = (package / "Sources/MyNetV2/MyNetV2.swift").read_text()
    assert "public var `in`: MLShapedArray<Float>" in model
    assert "public let class_scores: MLShapedArray<Float>" in model and "public let best: MLShapedArray<Int32>" in model
    assert '"in": MLFeatureValue(shapedArray: `in`),' in model and "MLState" not in model
    steps = (package / "Sources/MyNetV2/Preprocessing.swift").read_text()
    assert "channels: [Int] = [2, 1, 0]" in steps and "mean: [Float] = [0.5, 0.4, 0.3]" in steps
    assert "let factor = 10 / min(imageWidth, imageHeight)" in steps and "static let height = 8" in steps
    copied = package / "Sources/MyNetV2/Resources/model.mlpackage"
    names = [name for name in bundle.manifest["engine"]["files"] if name.startswith("model.mlpackage/")]
    assert names and all((copied.parent / name).read_bytes() == bundle.file(name).read_bytes() for name in names)


def test_its_samples_are_the_bundles(written: tuple[Bundle, Path]) -> None:
    bundle, package = written
    folder = package / "Tests/MyNetV2Tests/Resources"
    samples = json.loads((folder / "reference.json").read_text())
    inputs, outputs = bundle.reference()
    assert len(samples) == len(inputs) > 0
    for sample, given, made in zip(samples, inputs, outputs, strict=True):
        assert np.array_equal(_tensor(folder, sample["inputs"]["in"], "<f4"), given["in"])
        assert np.array_equal(_tensor(folder, sample["outputs"]["class_scores"], "<f4"), made["class.scores"])
        assert np.array_equal(_tensor(folder, sample["outputs"]["best"], "<i4"), made["best"])


def _tensor(folder: Path, entry: dict[str, Any], dtype: str) -> np.ndarray:
    return np.fromfile(folder / entry["file"], dtype).reshape(entry["shape"])


def test_swift_takes_every_file(written: tuple[Bundle, Path]) -> None:
    files = sorted(written[1].rglob("*.swift"))
    assert len(files) == 4
    check_syntax(files)


def check_syntax(files: list[Path]) -> None:
    assert not any("@" in line.replace("@testable", "") for file in files for line in file.read_text().splitlines())
    if compiler := shutil.which("swiftc"):
        subprocess.run([compiler, "-parse", *map(str, files)], check=True)
        return
    import tree_sitter_swift
    from tree_sitter import Language, Parser

    parser = Parser(Language(tree_sitter_swift.language()))
    assert parser.parse(b"struct {").root_node.has_error, "or it would find nothing"
    assert [file.name for file in files if parser.parse(file.read_bytes()).root_node.has_error] == []


def test_what_cannot_be_written(written: tuple[Bundle, Path], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me")
    with pytest.raises(RunError, match=r"cannot write the Swift package.*other files"):
        TARGET.write_app(written[0], tmp_path / "mine")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep me"
    (tmp_path / "m.onnx").write_bytes(to_bytes(network(), "m"))
    with pytest.raises(ToolchainError, match="no Swift package"):
        build(tmp_path / "m.onnx", tmp_path / "b.edge", target="null", swift=tmp_path / "s")
    assert not (tmp_path / "b.edge").exists()


def test_states_and_images(build_model: Callable[..., Any], written: tuple[Bundle, Path], tmp_path: Path) -> None:
    """The forms of the code that this network has not."""
    manifest = json.loads(json.dumps(written[0].manifest))
    settings = manifest["engine"]["settings"]
    settings["inputs"][0]["image"] = manifest["preprocess"]
    settings["states"] = [{"name": "past", "output": "present", "coreml": "past", "dtype": "float32"}]
    settings["classifier"] = {"label": "classLabel", "probabilities": "classLabel_probs", "labels": 5}
    TARGET.write_app(Bundle(written[0].path, manifest), tmp_path / "package")
    model = (tmp_path / "package/Sources/MyNetV2/MyNetV2.swift").read_text()
    height, width = manifest["inputs"][0]["shape"][-2:]
    assert f"pixelsWide: {width}, pixelsHigh: {height}, " in model, "Core ML takes no other size"
    assert "public let classLabel: String" in model and "public let classLabel_probs: [String: Double]" in model
    assert "Resources" not in (tmp_path / "package/Package.swift").read_text().split(".testTarget")[1], "there are none"
    check_syntax(sorted((tmp_path / "package").rglob("*.swift")))
    assert "public var `in`: CGImage" in model and "kCVPixelFormatType_32BGRA" in model
    assert "private var state: MLState" in model and "using: state))" in model and "func reset()" in model


def test_images_as_samples(written: tuple[Bundle, Path], tmp_path: Path) -> None:
    """Where the bundle's samples are images, Swift's test reads the same pixels; where they are drawn numbers, it says that there are none."""
    path = shutil.copytree(written[0].path, tmp_path / "net.edge")
    manifest = json.loads(json.dumps(written[0].manifest))
    manifest["engine"]["settings"]["inputs"][0]["image"] = manifest["preprocess"]
    TARGET.write_app(Bundle(path, manifest), tmp_path / "without")
    assert (
        "are no images of 8 bits, which in takes"
        in (tmp_path / "without/Tests/MyNetV2Tests/MyNetV2Tests.swift").read_text()
    )
    steps = replace(Preprocess.from_json(manifest["preprocess"]), resize=None, crop=None)
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    _, outputs = written[0].reference()
    save_reference(path / "reference.npz", [{"in": steps(Image.fromarray(pixels))}], outputs[:1])
    TARGET.write_app(Bundle(path, manifest), tmp_path / "package")
    tests = tmp_path / "package/Tests/MyNetV2Tests"
    assert '`in`: image(XCTUnwrap(sample.inputs["' in (tests / "MyNetV2Tests.swift").read_text()
    check_syntax([tests / "MyNetV2Tests.swift"])
    ((told, *_),) = [
        list(entry["inputs"].values()) for entry in json.loads((tests / "Resources/reference.json").read_text())
    ]
    np.testing.assert_array_equal(np.asarray(Image.open(tests / "Resources" / told["file"])), pixels)


def test_scalars_are_those_that_core_ml_has() -> None:
    kinds = {
        "float32": "Float",
        "float64": "Float",
        "float16": "Float16",
        "int64": "Int32",
        "uint8": "Int32",
        "bool": "Int32",
    }
    assert {kind: swift_type(Port("x", "x", kind)) for kind in kinds} == kinds
