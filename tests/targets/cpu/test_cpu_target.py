"""The target cpu: what ONNX Runtime takes, what it makes of a graph, and what of that is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgewise.quantize import quantize
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.data import random_data
from edgewise.runtime.errors import RunError
from edgewise.runtime.model import load
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets import BuildRequest, Executor, TargetError, find_device
from edgewise.targets.cpu import TARGET
from edgewise.targets.cpu.ort.layers import read_layers
from edgewise.targets.devices import parse_profile
from edgewise.targets.nodes import tensor_spec

SmallGraph = Callable[[str], ir.Model]
VNNI = find_device("x86-64-v4-vnni", "cpu")
ORT = {"engine": "onnxruntime"}


def int8(model: ir.Model, device: Any = VNNI) -> ir.Model:
    data = random_data([tensor_spec(value) for value in model.graph.inputs], 8, seed=0)
    return quantize(model, TARGET.quantization("int8", device), data, allow_random=True).model


def refusals(model: ir.Model) -> dict[str, str]:
    return {entry.node: entry.reason for entry in TARGET.support(model, VNNI) if not entry.taken}


@pytest.mark.parametrize(
    ("device", "reduced"),
    [("generic", True), ("x86-64-v3", True), ("x86-64-v4-vnni", False), ("raspberrypi5", False), ("pixel-9", False)],
)
def test_weights_have_7_bits_where_products_saturate(device: str, reduced: bool) -> None:
    spec = TARGET.quantization("int8", find_device(device, "cpu"))
    assert spec.reduce_range is reduced
    assert (spec.activation_dtype, spec.activation_symmetric, spec.per_channel) == ("uint8", False, True)


@pytest.mark.parametrize(("largest", "exact"), [(127, True), (64, False)])
def test_weights_in_8_bits_do_not_saturate_on_lesser_processors(
    largest: int, exact: bool, graph_maker: Any, make_bundle: Any
) -> None:
    """All products are the largest that there are: 2 x 255 x 127 is more than 16 bits hold."""
    g = graph_maker()
    one, zero = g.constant("one", np.float32(1)), g.constant("zero", np.uint8(0))
    read = g.add("DequantizeLinear", [g.add("QuantizeLinear", ["x", one, zero], "q"), one, zero], "d")
    weights = g.add("DequantizeLinear", [g.constant("w", np.full((64, 8), largest, np.int8)), one], "v")
    scale = g.constant("s", np.float32(largest * 64))
    made = g.add("QuantizeLinear", [g.add("MatMul", [read, weights], "m"), scale, zero], "r")
    g.add("DequantizeLinear", [made, scale, zero], "y")
    model = g.model({"x": [1, 4, 64]}, {"y": [1, 4, 8]}, opset=20)
    inputs = {"x": np.full((1, 4, 64), 255, np.float32)}
    bundle, result = make_bundle(TARGET, model, device="x86-64-v3", options=ORT)
    assert result.settings.get("exact_products", False) is exact
    assert {row["precision"] for row in result.layers if "MatMul" in row["op"]} == {"int8"}
    for made in (load(bundle.path).run(inputs), OnnxRunner(model).run(inputs)):
        np.testing.assert_array_equal(made["y"], np.full((1, 4, 8), 255 * 64 * largest, np.float32))
    model.opset_imports[""] = 21
    _, result = make_bundle(TARGET, model, device="x86-64-v3", options=ORT, name="newer")
    assert any("saturate on x86 without VNNI" in note for note in result.notes) is exact
    np.testing.assert_array_equal(OnnxRunner(model).run(inputs)["y"], made["y"])


def test_avx_vnni_does_not_saturate_either() -> None:
    text = 'summary = "x"\ntargets = ["cpu"]\narch = "x86_64"\nisa = ["avx2", "avx_vnni"]\n'
    assert TARGET.quantization("int8", parse_profile("alder-lake", text)).reduce_range is False


@pytest.mark.parametrize(("arch", "found"), [("", "arch none"), ('arch = "riscv64"\n', "arch riscv64")])
def test_a_device_of_no_known_architecture_is_refused(arch: str, found: str, small_graph: SmallGraph) -> None:
    profile = parse_profile("odd", f'summary = "x"\ntargets = ["cpu"]\n{arch}')
    for ask in (lambda: TARGET.quantization("int8", profile), lambda: TARGET.support(small_graph("conv_net"), profile)):
        with pytest.raises(TargetError, match=f"found {found}; expected arch x86_64 or aarch64"):
            ask()


def test_float_layers_are_fused_and_read_back(small_graph: SmallGraph, make_bundle: Any) -> None:
    _, result = make_bundle(TARGET, small_graph("conv_net"), options=ORT)
    assert Counter(layer["op"] for layer in result.layers)["com.microsoft::FusedConv"] == 2, "Conv and Relu became one"
    assert {layer["precision"] for layer in result.layers} == {"float32"}
    assert result.notes == []


def test_int8_layers_compute_in_int8(small_graph: SmallGraph, make_bundle: Any) -> None:
    _, result = make_bundle(TARGET, int8(small_graph("conv_net")), device=VNNI, options=ORT)
    found = Counter((layer["op"], layer["precision"]) for layer in result.layers)
    assert found["QLinearConv", "int8"] == 3 and found["com.microsoft::QGemm", "int8"] == 1
    assert result.notes == ["100 % of the multiply-accumulates run in int8."]


def test_a_transformers_products_compute_in_int8(small_graph: SmallGraph, make_bundle: Any) -> None:
    _, result = make_bundle(TARGET, int8(small_graph("transformer_block")), device=VNNI, options=ORT)
    assert result.notes == ["100 % of the multiply-accumulates run in int8."]
    assert {layer["precision"] for layer in result.layers if "LayerNorm" in layer["op"]} == {"float32"}


def test_what_stays_in_float_is_named_with_its_share(small_graph: SmallGraph, make_bundle: Any) -> None:
    """Signed activations have no integer convolution on x86: the layers compute in float, and that is said."""
    spec = TARGET.quantization("int8", VNNI)
    data = random_data([tensor_spec(value) for value in small_graph("conv_net").graph.inputs], 4, seed=0)
    model = quantize(small_graph("conv_net"), spec, data, allow_random=True, keep_float=["conv2_node"]).model
    _, result = make_bundle(TARGET, model, device=VNNI, options=ORT)
    # conv1 16·8·8·27 + conv3 16·8·8·16 + fc 160 of these and conv2's 16·8·8·9
    share = (27648 + 16384 + 160) / (27648 + 9216 + 16384 + 160)
    assert result.notes == [
        f"{int(share * 1000) / 10:g} % of the multiply-accumulates run in int8; in float: conv2_node (Conv)."
    ]


def test_multiply_accumulates_are_those_of_the_shapes(graph_maker: Any) -> None:
    g = graph_maker()
    g.add("Conv", ["x", g.weights("w", 6, 2, 3, 3)], "c", group=2)
    g.add("ConvTranspose", ["c", g.weights("t", 6, 5, 2, 2)], "d", strides=[2, 2])
    g.add("Reshape", ["d", g.constant("s", np.int64([5, -1]))], "m")
    g.add("Gemm", ["m", g.weights("h", 5, 3)], "y", transA=1)
    layers = {
        layer.name: layer.macs for layer in read_layers(ir.to_proto(g.model({"x": [1, 4, 8, 8]}, {"y": [144, 3]})))
    }
    assert layers == {"c_node": 6 * 36 * 18, "d_node": 6 * 36 * 20, "m_node": None, "y_node": 144 * 5 * 3}


@pytest.mark.parametrize("file_format", ["onnx", "ort"])
@pytest.mark.parametrize("optimization", ["basic", "extended", "all"])
def test_every_option_gives_an_engine_that_computes_the_same(
    file_format: str, optimization: str, small_graph: SmallGraph, make_bundle: Any
) -> None:
    model = small_graph("dynamic_batch")
    options = {"format": file_format, "optimization": optimization}
    bundle, result = make_bundle(TARGET, model, options=options)
    assert result.files == [f"model.{file_format}"] and set(bundle.manifest["files"]) == set(result.files)
    executor = TARGET.executor(bundle)
    assert isinstance(executor, Executor)
    inputs = {"x": np.random.default_rng(1).standard_normal((3, 3, 16, 16)).astype(np.float32)}
    parity = compare_outputs([OnnxRunner(model, optimize=False).run(inputs)], [executor.run(inputs)])[0]
    assert parity.sqnr_db > 100
    assert any("bound" in note or "another processor" in note for note in result.notes) == (optimization == "all")
    assert result.varying == (["model.ort"] if file_format == "ort" else [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "tflite"}, "expected onnx or ort"),
        ({"threads": 4}, "found 'threads'"),
        ({"optimization": "max"}, "expected basic or"),
        ({"max_dims": {"N": 8}}, "found N: 8; expected none: no dim of the inputs is open"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: dict[str, Any], message: str, small_graph: SmallGraph, make_bundle: Any
) -> None:
    with pytest.raises(TargetError, match=message):
        make_bundle(TARGET, small_graph("conv_net"), options=options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_dims": {"batch": 8}}, "expected a whole number from 1 on, for one of N"),
        ({"max_dims": {"N": 0}}, "found N: 0; expected a whole number from 1 on"),
        ({"max_dims": {"N": 4}, "engine": "auto"}, "expected engine native for max_dims"),
    ],
)
def test_largest_dims_that_do_not_fit_are_refused(
    options: dict[str, Any], message: str, small_graph: SmallGraph, make_bundle: Any
) -> None:
    with pytest.raises(TargetError, match=message):
        make_bundle(TARGET, small_graph("dynamic_batch"), options=options)


def test_a_stated_largest_dim_is_held(small_graph: SmallGraph, make_bundle: Any) -> None:
    pytest.importorskip("edgewise.runtime._native", reason="edgewise was installed without libedgewise")
    model = small_graph("dynamic_batch")
    bundle, result = make_bundle(TARGET, model, options={"max_dims": {"N": 4}})
    assert result.settings["max_dims"] == {"N": 4}
    opened = load(bundle.path, threads=1)
    planned = opened.memory()  # before any shape is known
    for batch in (4, 1, 3):
        inputs = {"x": np.random.default_rng(1).standard_normal((batch, 3, 16, 16)).astype(np.float32)}
        parity = compare_outputs([OnnxRunner(model, optimize=False).run(inputs)], [opened.run(inputs)])[0]
        assert parity.sqnr_db > 100
        assert opened.memory() == planned
    with pytest.raises(RunError, match=r"dim 0 \(N\) of input x is 5, and the engine was built for at most 4"):
        opened.run({"x": np.zeros((5, 3, 16, 16), np.float32)})


def test_the_file_asks_for_no_more_than_it_uses(small_graph: SmallGraph, make_bundle: Any) -> None:
    """ONNX Runtime would declare every domain that it was built with, and an older one would refuse the file."""
    bundle, _ = make_bundle(TARGET, small_graph("transformer_block"), options=ORT)
    proto = onnx.load(str(bundle.path / "model.onnx"))
    assert {entry.domain for entry in proto.opset_import} == {"", *{node.domain for node in proto.graph.node}}
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)


@pytest.mark.parametrize("ir_version", [8, 10])
def test_the_ir_version_is_that_of_the_source(ir_version: int, small_graph: SmallGraph, tmp_path: Path) -> None:
    model = small_graph("conv_net")
    model.ir_version = ir_version
    TARGET.build(BuildRequest(model, tmp_path, VNNI, ORT))
    assert onnx.load(str(tmp_path / "model.onnx")).ir_version == ir_version


def test_every_refused_node_is_found_and_the_others_are_not(graph_maker: Any) -> None:
    g = graph_maker()
    g.add("Relu", ["x"], "a")
    g.add("Mystery", ["a"], "b", domain="somebody")
    g.add("Sigmoid", ["b"], "c")
    g.add("NonZero", ["c"], "d")
    g.add("Riddle", ["d"], "e", domain="somebody")
    g.add("Not", ["e"], "y")  # of what type e is nobody knows, and Not takes booleans alone
    found = refusals(g.model({"x": [2, 3]}, {"y": [2]}, somebody=1))
    assert set(found) == {"b_node", "e_node"}
    assert "Mystery" in found["b_node"] and "Riddle" in found["e_node"]
    assert not any("ONNXRuntimeError" in reason for reason in found.values())


def test_an_operator_that_the_opset_does_not_have_is_refused(graph_maker: Any) -> None:
    g = graph_maker()
    g.add("Gelu", ["x"], "y")
    assert refusals(g.model({"x": [4]}, {"y": [4]}, opset=20)) == {}
    assert set(refusals(g.model({"x": [4]}, {"y": [4]}, opset=18))) == {"y_node"}


def test_a_type_without_a_kernel_is_refused(graph_maker: Any) -> None:
    g = graph_maker()
    g.add("Cast", ["x"], "a", to=int(TensorProto.BFLOAT16))
    g.add("MaxPool", ["a"], "b", kernel_shape=[2, 2])
    g.add("Cast", ["b"], "y", to=int(TensorProto.FLOAT))
    found = refusals(g.model({"x": [1, 1, 4, 4]}, {"y": [1, 1, 3, 3]}, opset=22))
    assert set(found) == {"b_node"} and "MaxPool" in found["b_node"]


def test_a_branch_that_captures_a_tensor_is_examined_with_it(graph_maker: Any) -> None:
    branches = {}
    for name, op in (("then", "Mystery"), ("else", "Relu")):
        node = helper.make_node(
            op, ["outer"], [f"{name}_out"], name=f"{name}_op", domain="somebody" if op == "Mystery" else ""
        )
        out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [4])
        branches[f"{name}_branch"] = helper.make_graph([node], name, [], [out])
    g = graph_maker()
    g.add("Neg", ["x"], "outer")
    g.add("ReduceMax", ["x"], "most", keepdims=0)
    g.add("Cast", ["most"], "flag", to=int(TensorProto.BOOL))
    g.add("If", ["flag"], "y", **branches)
    assert set(refusals(g.model({"x": [4]}, {"y": [4]}, somebody=1))) == {"y_node"}
    branches["then_branch"].node[0].op_type, branches["then_branch"].node[0].domain = "Exp", ""
    g.nodes[-1] = helper.make_node("If", ["flag"], ["y"], name="y_node", **branches)
    g.add("Mystery", ["y"], "z", domain="somebody")
    assert set(refusals(g.model({"x": [4]}, {"z": [4]}, somebody=1))) == {"z_node"}


def test_an_invalid_graph_is_refused_as_a_whole(graph_maker: Any) -> None:
    g = graph_maker()
    g.add("Relu", ["x"], "y")
    model = g.model({"x": [4]}, {"y": [4]})
    model.graph.outputs[0].shape = ir.Shape([4, 4])
    model.graph.outputs[0].type = ir.TensorType(ir.DataType.INT64)
    with pytest.raises(TargetError, match="ONNX Runtime refuses the graph"):
        TARGET.support(model, VNNI)


def test_a_full_disk_leaves_nothing(
    small_graph: SmallGraph, tmp_path: Path, make_bundle: Any, monkeypatch: Any
) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(Exception, match="No space left on device"):
        make_bundle(TARGET, small_graph("conv_net"))
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=15)
@given(
    channels=st.integers(1, 4), kernel=st.integers(1, 3), side=st.integers(3, 7), group=st.booleans(), relu=st.booleans(),
    batch=st.integers(1, 3),
)  # fmt: skip
def test_engines_of_any_shape_compute_what_the_graph_computes(
    channels: int, kernel: int, side: int, group: bool, relu: bool, batch: int, tmp_path_factory: Any
) -> None:
    random = np.random.default_rng(channels * 100 + kernel * 10 + side)
    shape = (channels, 1 if group else channels, kernel, kernel)
    weights = onnx.numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], name="conv", group=channels if group else 1)]
    nodes += [helper.make_node("Relu" if relu else "Tanh", ["c"], ["y"], name="act")]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
        for name, dims in (("x", ["N", channels, side, side]), ("y", None))
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [weights])
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))
    folder = tmp_path_factory.mktemp("engine")
    TARGET.build(BuildRequest(model, folder, VNNI, ORT))
    inputs = {"x": random.standard_normal((batch, channels, side, side)).astype(np.float32)}
    found, expected = (
        OnnxRunner(folder / "model.onnx").run(inputs)["y"],
        OnnxRunner(model, optimize=False).run(inputs)["y"],
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
