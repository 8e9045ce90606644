"""Engines built here without a GPU: their layers as read back, for several compute capabilities, and checked by stand-in."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.quantize import quantize
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.data import random_data
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets import BuildRequest, Executor, TargetError, find_device
from edgewise.targets.nodes import tensor_spec
from edgewise.targets.tensorrt import TARGET, ahead
from edgewise.targets.tensorrt.engine_layers import EngineLayer, parse_listing, precision_notes
from edgewise.targets.tensorrt.settings import read_settings
from edgewise.targets.tensorrt.vendor import parse, tensorrt_rtx

SmallGraph = Callable[[str], ir.Model]
PRODUCTS = {"correlation", "gemm"}


def int8(model: ir.Model) -> ir.Model:
    data = random_data([tensor_spec(value) for value in model.graph.inputs], 8, seed=0)
    return quantize(
        model, TARGET.quantization("int8", find_device("rtx-4070", "tensorrt")), data, allow_random=True
    ).model


def products(layers: list[dict[str, str]], ops: tuple[str, ...] = ("Conv", "Gemm", "MatMul")) -> set[str]:
    return {layer["precision"] for layer in layers if layer["op"].split(" + ")[0] in ops}


@pytest.mark.parametrize(("precision", "db"), [("float16", 50), ("float32", 100)])
def test_the_precision_that_was_asked_for_is_in_the_engine(
    precision: str, db: float, small_graph: SmallGraph, make_bundle: Any
) -> None:
    model = small_graph("transformer_block")
    bundle, result = make_bundle(TARGET, model, options={"precision": precision})
    assert products(result.layers) == {precision}
    assert any(f"8 in {precision}" in note for note in result.notes), "8 matrix products"
    assert not any(note.startswith("Not in") for note in result.notes)
    inputs = {"x": np.random.default_rng(0).standard_normal((1, 12, 32)).astype(np.float32)}
    executor = TARGET.executor(bundle)
    assert isinstance(executor, Executor)
    parity = compare_outputs([OnnxRunner(model).run(inputs)], [executor.run(inputs)])[0]
    assert parity.sqnr_db > db


@pytest.mark.parametrize("tf32", [False, True])
def test_float32_is_not_rounded_unless_allowed(tf32: bool, small_graph: SmallGraph, tmp_path: Any) -> None:
    """TensorRT's own default is to round the factors of float32 products."""
    builder = parse(ir.to_proto(small_graph("conv_net")).SerializeToString()).builder
    request = BuildRequest(
        small_graph("conv_net"),
        tmp_path,
        find_device("rtx-4070", "tensorrt"),
        {"tf32": tf32, "workspace_bytes": 1 << 22},
    )
    config = ahead.make_config(builder, read_settings(request))
    assert config.get_flag(tensorrt_rtx().BuilderFlag.TF32) is tf32
    assert config.get_memory_pool_limit(tensorrt_rtx().MemoryPoolType.WORKSPACE) == 1 << 22
    assert config.get_compute_capability(0) == tensorrt_rtx().ComputeCapability.SM89


@pytest.mark.parametrize("device", ["rtx-3060", "rtx-4070", "rtx-5080"])
def test_int8_layers_compute_in_int8(device: str, small_graph: SmallGraph, make_bundle: Any) -> None:
    _, result = make_bundle(TARGET, int8(small_graph("conv_net")), device=device)
    assert any("products as read back from the builder: 4 in int8." in note for note in result.notes), result.notes
    assert not any(note.startswith("Not in") for note in result.notes)


def test_int8_that_does_not_happen_is_said(small_graph: SmallGraph, make_bundle: Any) -> None:
    """Turing has no int8 convolution in TensorRT for RTX: the builder dequantizes without a word."""
    _, result = make_bundle(TARGET, int8(small_graph("conv_net")), device="t4")
    missed = [note for note in result.notes if note.startswith("Not in int8 but in float16")]
    assert missed and "conv1_node" in missed[0], result.notes


def test_a_builders_refusal_names_node_and_remedy(small_graph: SmallGraph, make_bundle: Any) -> None:
    with pytest.raises(TargetError) as caught:
        make_bundle(TARGET, small_graph("transformer_block"), device="t4", options={"precision": "float32"})
    message = str(caught.value)
    assert "SM75" in message and "operator MatMul" in message and "FP32 GEMM is not supported" in message
    assert "precision: float16" in caught.value.fix


def test_the_bundle_holds_the_graph_that_the_engine_was_built_from(small_graph: SmallGraph, make_bundle: Any) -> None:
    bundle, result = make_bundle(TARGET, small_graph("conv_net"))
    assert result.files == ["model.engine"]
    assert set(bundle.manifest["files"]) == {"model.engine", "model.onnx"}
    assert result.settings["library"] == "tensorrt_rtx" and result.settings["sm"] == 89
    assert result.versions["tensorrt_rtx"] == result.settings["version"]
    assert bundle.size_bytes == (bundle.path / "model.engine").stat().st_size


def test_where_the_engine_cannot_run_its_graph_stands_in_and_says_so(small_graph: SmallGraph, make_bundle: Any) -> None:
    bundle, _ = make_bundle(TARGET, small_graph("conv_net"))
    executor = TARGET.executor(bundle)
    assert isinstance(executor, Executor)
    if executor.stand_in:  # on a machine with that GPU the engine itself runs
        assert "the engine for SM89 was not run (" in executor.how
        assert "in ONNX Runtime on the processor, with float16 rounding" in executor.how
    assert str(bundle.path.parent) not in executor.how, "it goes into the manifest, and the folder may be a draft"


def test_without_the_listing_the_network_definition_is_told_and_said(
    small_graph: SmallGraph, make_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "parse_listing", lambda messages: [])
    _, result = make_bundle(TARGET, small_graph("conv_net"))
    assert {layer["unit"] for layer in result.layers} == {"planned"}
    assert products(result.layers) == {"float16"}
    assert any("listing was not available" in note for note in result.notes)


def test_a_jetsons_bundle_holds_all_that_the_device_needs(small_graph: SmallGraph, make_bundle: Any) -> None:
    bundle, result = make_bundle(
        TARGET,
        small_graph("dynamic_batch"),
        device="jetson-agx-orin",
        options={"dla_core": 1, "workspace_bytes": 1 << 28},
    )
    assert (
        set(result.files)
        == {"model.onnx", "build_settings.json", "build_on_device.py"}
        == set(bundle.manifest["files"])
    )
    assert result.settings["library"] == "tensorrt" and result.settings["engine_built"] is False
    asked = json.loads((bundle.path / "build_settings.json").read_text())
    assert asked["onnx_sha256"] == bundle.manifest["files"]["model.onnx"]
    assert (asked["sm"], asked["dla_core"], asked["workspace_bytes"]) == (87, 1, 1 << 28)
    assert asked["profiles"]["x"]["max"] == [8, 3, 16, 16]
    assert {layer["unit"] for layer in result.layers} == {"planned"}
    assert any("python3 build_on_device.py" in note for note in result.notes)
    executor = TARGET.executor(bundle)
    assert isinstance(executor, Executor) and executor.stand_in
    assert "the engine for SM87 was not run (it is yet to be built on the device)" in executor.how


LISTING = """Layers:
Name: q_myl0_0, LayerType: kgen, Inputs: [ { Name: x, Dimensions: [1,8], Strides: [8,1], Datatype: Float, Format: (Linear) }], \
Constants: [], Outputs: [ { Name: q, Dimensions: [1,8], Datatype: Int8, Format: (Linear) }], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: q0]
Name: conv_myl0_1, LayerType: correlation, Inputs: [ { Name: q, Dimensions: [1,8], Datatype: Int8, Format: (NHWC) }], \
Constants: [ { Name: w, Dimensions: [8], Datatype: Int8, Format: (NHWC) }], Outputs: [ { Name: c, Datatype: Float, Format: (NHWC) }], \
TacticName: , StreamId: 0, Metadata: [ONNX Layer: conv][ONNX Layer: dq0]
Name: tail_myl0_2, LayerType: kgen, Inputs: [ { Name: c, Dimensions: [1,8], Datatype: Half, Format: (NHWC) }], Constants: [], \
Outputs: [ { Name: y, Datatype: Float, Format: (Linear) }], TacticName: , StreamId: 0, Metadata: [ONNX Layer: conv][ONNX Layer: relu]
Name: signal_3, LayerType: signal, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, Metadata:~

I/O Tensors:
""".replace("~", " ")


def test_a_listing_is_read_layer_by_layer() -> None:
    layers = parse_listing(["Something else", LISTING])
    assert layers == [
        EngineLayer("q_myl0_0", "kgen", ("q0",), ("float32",), ("int8",)),
        EngineLayer("conv_myl0_1", "correlation", ("conv", "dq0"), ("int8",), ("float32",), ("int8",)),
        EngineLayer("tail_myl0_2", "kgen", ("conv", "relu"), ("float16",), ("float32",)),
    ]
    assert parse_listing(["nothing"]) == []


def test_a_product_counts_by_its_kernel_not_by_what_surrounds_it() -> None:
    layers = parse_listing([LISTING])
    ops = {"conv": "Conv", "relu": "Relu"}
    assert precision_notes(layers, ops, {"conv"}, "float16") == [
        "Convolutions and matrix products as read back from the builder: 1 in int8."
    ]
    dequantized = [EngineLayer("conv_1", "correlation", ("conv",), ("float32",), ("float32",)), *layers[2:]]
    assert precision_notes(dequantized, ops, {"conv"}, "float16")[1] == "Not in int8 but in float32: conv."
    assert precision_notes(dequantized, ops, set(), "float16")[1] == "Not in float16 but in float32: conv."
    generated = [EngineLayer("norm_fc", "kgen", ("conv",), ("float32",), ("float16",), ("float32", "float16"))]
    assert len(precision_notes(generated, ops, set(), "float16")) == 1, "its weights are float16, its product is too"
    assert precision_notes([], ops, set(), "float16")[1] == "Not in float16 but in no kernel of its own: conv."
