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
from edgewise.runtime.errors import GateError
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets import BuildRequest, Executor, TargetError, find_device
from edgewise.targets.nodes import tensor_spec
from edgewise.targets.tensorrt import TARGET, ahead
from edgewise.targets.tensorrt.engine_layers import EngineLayer, parse_listing
from edgewise.targets.tensorrt.prepare import prepare
from edgewise.targets.tensorrt.proof import asked_types, precision_notes, proof, require_precision
from edgewise.targets.tensorrt.proof import products as made_of
from edgewise.targets.tensorrt.settings import read_settings
from edgewise.targets.tensorrt.sparse import find_masks
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
    config = ahead.make_config(builder, read_settings(request), sparse=tf32)
    assert config.get_flag(tensorrt_rtx().BuilderFlag.SPARSE_WEIGHTS) is tf32
    assert config.get_flag(tensorrt_rtx().BuilderFlag.TF32) is tf32
    assert config.get_memory_pool_limit(tensorrt_rtx().MemoryPoolType.WORKSPACE) == 1 << 22
    assert config.get_compute_capability(0) == tensorrt_rtx().ComputeCapability.SM89


@pytest.mark.parametrize("device", ["rtx-3060", "rtx-4070", "rtx-5080"])
def test_int8_layers_compute_in_int8(device: str, small_graph: SmallGraph, make_bundle: Any) -> None:
    _, result = make_bundle(TARGET, int8(small_graph("conv_net")), device=device)
    assert any("products as read back from the builder: 4 in int8." in note for note in result.notes), result.notes
    assert not any(note.startswith("Not in") for note in result.notes)


def test_int8_that_does_not_happen_fails_unless_allowed(small_graph: SmallGraph, make_bundle: Any) -> None:
    """Turing has no int8 convolution in TensorRT for RTX: the builder dequantizes without a word."""
    with pytest.raises(
        GateError, match="3 of 4 products in another type: Not in int8 but in float16: conv1_node"
    ) as caught:
        make_bundle(TARGET, int8(small_graph("conv_net")), device="t4")
    assert caught.value.exit_code == 1 and "allow_other_precision" in caught.value.fix
    _, result = make_bundle(
        TARGET, int8(small_graph("conv_net")), device="t4", options={"allow_other_precision": True}, name="allowed"
    )
    missed = [note for note in result.notes if note.startswith("Not in int8 but in float16")]
    assert missed and "conv1_node" in missed[0], result.notes
    assert [entry["asked"] for entry in result.proof["not_as_asked"]] == ["int8"] * 3


def test_one_engine_for_several_gpus_computes_as_the_least_of_them(small_graph: SmallGraph, make_bundle: Any) -> None:
    bundle, result = make_bundle(TARGET, small_graph("conv_net"), options={"compute_capabilities": [120, 86]})
    assert result.settings["sm"] == [86, 89, 120]
    assert any("One engine for SM86 and SM89 and SM120" in note for note in result.notes)
    executor = TARGET.executor(bundle)
    assert isinstance(executor, Executor)
    if executor.stand_in:
        assert "the engine for SM86 and SM89 and SM120 was not run" in executor.how
    with pytest.raises(GateError, match="SM75 and SM89"):
        make_bundle(TARGET, int8(small_graph("conv_net")), options={"compute_capabilities": [75]}, name="with_turing")


def test_a_builders_refusal_names_node_and_remedy(small_graph: SmallGraph, make_bundle: Any) -> None:
    with pytest.raises(TargetError) as caught:
        make_bundle(TARGET, small_graph("transformer_block"), device="t4", options={"precision": "float32"})
    message = str(caught.value)
    assert "SM75" in message and "operator MatMul" in message and "FP32 GEMM is not supported" in message
    assert "precision: float16" in caught.value.fix


def test_the_bundle_holds_the_graph_that_the_engine_was_built_from(small_graph: SmallGraph, make_bundle: Any) -> None:
    bundle, result = make_bundle(TARGET, small_graph("conv_net"))
    assert result.files == ["model.engine"]
    assert set(bundle.manifest["files"]) == {"model.engine", "model.onnx", "layers.json"}
    layers = json.loads((bundle.path / "layers.json").read_text())
    assert len(layers) == result.proof["layers"] == len(result.layers)
    assert result.proof["products"] == {"float16": 4} and not result.proof["not_as_asked"]
    assert result.proof["fused_nodes"] > 4 and result.proof["read_from"] == "the builder's listing"
    assert result.proof["sparse"]["layers"] == [] and "by the device" in result.proof["sparse"]["decided"]
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
        EngineLayer("q_myl0_0", "kgen", ("q0",), ("float32",), ("int8",), (), "t", ("Linear", "Linear")),
        EngineLayer(
            "conv_myl0_1",
            "correlation",
            ("conv", "dq0"),
            ("int8",),
            ("float32",),
            ("int8",),
            "",
            ("NHWC", "NHWC"),
            "int8",
        ),
        EngineLayer("tail_myl0_2", "kgen", ("conv", "relu"), ("float16",), ("float32",), (), "", ("NHWC", "Linear")),
    ]
    assert parse_listing(["nothing"]) == []


def told(layers: list[EngineLayer], asked: str) -> list[str]:
    return precision_notes(made_of(layers, {"conv": ("Conv", asked)}))


def test_a_product_counts_by_its_kernel_not_by_what_surrounds_it() -> None:
    layers = parse_listing([LISTING])
    assert told(layers, "int8") == ["Convolutions and matrix products as read back from the builder: 1 in int8."]
    dequantized = [EngineLayer("conv_1", "correlation", ("conv",), ("float32",), ("float32",)), *layers[2:]]
    assert told(dequantized, "int8")[1] == "Not in int8 but in float32: conv."
    assert told(dequantized, "float16")[1] == "Not in float16 but in float32: conv."
    generated = [EngineLayer("norm_fc", "kgen", ("conv",), ("float32",), ("float16",), ("float32", "float16"))]
    assert len(told(generated, "float16")) == 1, "its weights are float16, its product is too"
    assert len(told(generated, "float32")) == 1, "it reads float32 and may well multiply so"
    assert told(generated, "int8")[1] == "Not in int8 but in float16: conv."
    assert told([], "float16") == [
        "Convolutions and matrix products as read back from the builder: 1 in no kernel of its own."
    ]


def test_products_of_which_nothing_is_told_do_not_pass() -> None:
    with pytest.raises(GateError, match="none of the products in the engine's list of layers"):
        require_precision(made_of([], {"conv": ("Conv", "float16")}), "SM89", allowed=False)
    require_precision([], "SM89", allowed=False)


def test_what_a_graph_asks_for_is_what_was_dequantized(small_graph: SmallGraph) -> None:
    asked = asked_types(prepare(int8(small_graph("conv_net")), "float16").model)
    assert set(asked.values()) == {("Conv", "int8"), ("Gemm", "int8")}
    half = asked_types(prepare(small_graph("conv_net"), "float16", ["conv2_node"]).model)
    assert half["conv2_node"] == ("Conv", "float32") and half["conv1_node"] == ("Conv", "float16")


def test_sparse_kernels_and_format_changes_are_told_by_their_names() -> None:
    layers = [
        EngineLayer(
            "a", "Conv", ("c",), ("float16",), ("float16",), (), "sm80_xmma_fprop_sparse_conv_f16", ("NHWC", "NHWC")
        ),
        EngineLayer("b", "Reformat", (), ("float16",), ("float16",), (), "copy", ("Linear", "NHWC")),
    ]
    told = proof(layers, [], "the inspector", sparse=True)
    assert told["sparse"] == {"asked": True, "layers": ["a"], "decided": "by the builder"}
    assert told["format_changes"] == ["b"]


@pytest.fixture
def sparse_net(graph_maker: Any) -> Callable[[bool], ir.Model]:
    def make(kept: bool) -> ir.Model:
        g = graph_maker()
        weights = np.random.default_rng(0).standard_normal((8, 16, 3, 3)).astype(np.float32)
        weights[:, 2::4], weights[:, 3::4] = 0, 0
        if not kept:
            weights[3, 5 - 3, 0, 1] = 1.0
        g.add("Conv", ["x", g.constant("w", weights)], "y", pads=[1, 1, 1, 1])
        return g.model({"x": [1, 16, 8, 8]}, {"y": [1, 8, 8, 8]})

    return make


def test_two_of_four_masks_set_the_flag(sparse_net: Any, make_bundle: Any) -> None:
    _, result = make_bundle(TARGET, sparse_net(True))
    assert result.proof["sparse"]["asked"] is True
    assert any(note.startswith("2:4 sparse weights in 1 layers") for note in result.notes)
    quantized = find_masks(int8(sparse_net(True)))
    assert quantized.kept == ["y_node"], "integers count as the weights that they stand for"


def test_a_broken_mask_is_told_with_its_place_and_refused_where_asked_for(sparse_net: Any, make_bundle: Any) -> None:
    _, result = make_bundle(TARGET, sparse_net(False))
    assert result.proof["sparse"]["asked"] is False
    place = "1 of 288 groups have more than 2 weights, the first at output 3, position 1, inputs 0 to 3"
    assert any(place in note for note in result.notes), result.notes
    with pytest.raises(TargetError, match="expected 2:4") as caught:
        make_bundle(TARGET, sparse_net(False), options={"sparse": True}, name="asked")
    assert place in caught.value.found


@pytest.mark.parametrize("listed", [[87], ["89"], [89, 300]])
def test_compute_capabilities_that_nobody_builds_for(
    listed: list[Any], small_graph: SmallGraph, make_bundle: Any
) -> None:
    with pytest.raises(TargetError, match=r"found compute_capabilities = .*; expected some of 75"):
        make_bundle(TARGET, small_graph("conv_net"), options={"compute_capabilities": listed})


def test_bfloat16(small_graph: SmallGraph, make_bundle: Any) -> None:
    bundle, result = make_bundle(TARGET, small_graph("transformer_block"), options={"precision": "bfloat16"})
    assert result.proof["products"] == {"bfloat16": 8} and not result.proof["not_as_asked"]
    inputs = {"x": np.random.default_rng(0).standard_normal((1, 12, 32)).astype(np.float32)}
    executor = TARGET.executor(bundle)
    assert isinstance(executor, Executor)
    parity = compare_outputs([OnnxRunner(small_graph("transformer_block")).run(inputs)], [executor.run(inputs)])[0]
    assert 30 < parity.sqnr_db < 55, "8 digits: worse than float16, and rounded at all"
