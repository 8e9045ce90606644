"""``verify`` of TensorRT bundles: layer by layer on the graph that stands in, and the precision that was read back from the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

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


def quantized(zero: int, computed: bool = False) -> onnx.ModelProto:
    """x ─► QuantizeLinear(uint8, zero point) ─► DequantizeLinear ─► Conv ─► y, as other tools write it."""
    random = np.random.default_rng(0)
    zero_name = "zero_computed" if computed else "zero"
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", zero_name], ["q"], name="q_node"),
        helper.make_node("DequantizeLinear", ["q", "scale", zero_name], ["d"], name="d_node"),
        helper.make_node("DequantizeLinear", ["w", "scale", "w_zero"], ["w_d"], name="w_node"),
        helper.make_node("Conv", ["d", "w_d"], ["y"], name="conv"),
    ]
    constants = {
        "scale": np.float32(0.02),
        "zero": np.uint8(zero),
        "w_zero": np.int8(0),
        "w": random.integers(-127, 128, (8, 4, 1, 1)).astype(np.int8),
    }
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])]
    if computed:
        inputs.append(helper.make_tensor_value_info("zero_computed", TensorProto.UINT8, []))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 8, 8])]
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "q", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_zero_points_are_made_symmetric_or_refused(tmp_path: Path, cli: Any) -> None:
    onnx.save(quantized(3), tmp_path / "q.onnx")
    order = ("build", tmp_path / "q.onnx", "-o", tmp_path / "q.edge", "--target", "tensorrt")
    done = cli(*order, "--min-sqnr", "20")
    assert done.code == 0 and "2 8-bit grids had a zero point" in " ".join((done.err + done.out).split())
    assert open_bundle(tmp_path / "q.edge").manifest["engine"]["proof"]["products"] == {"int8": 1}
    onnx.save(quantized(3, computed=True), tmp_path / "c.onnx")
    done = cli("build", tmp_path / "c.onnx", "-o", tmp_path / "c.edge", "--target", "tensorrt")
    text = " ".join(done.err.split())
    assert done.code == 2 and "a zero point that is computed" in text and "q_node" in text and "Traceback" not in text
    assert not (tmp_path / "c.edge").exists()


def test_an_operator_without_a_kernel_is_named_with_the_nearest_rewrite(tmp_path: Path, cli: Any) -> None:
    node = helper.make_node("Det", ["x"], ["y"], name="volume")
    graph = helper.make_graph(
        [node],
        "d",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "d.onnx")
    done = cli("build", tmp_path / "d.onnx", "-o", tmp_path / "d.edge", "--target", "tensorrt")
    text = " ".join(done.err.split())
    assert done.code == 2 and "Traceback" not in text
    assert "'volume', operator Det" in text and "the nearest rewrite: Mul and Sub written out" in text, text
