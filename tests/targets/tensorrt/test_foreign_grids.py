"""Q and DQ as other tools place them: ONNX Runtime's quantizer, which rounds around every operator, and what TensorRT builds of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.quantize import quantize
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.data import random_data
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets import find_device
from edgewise.targets.nodes import tensor_spec
from edgewise.targets.tensorrt import TARGET
from edgewise.targets.tensorrt.foreign_grids import DropRounding, RoundBeforePools
from edgewise.targets.tensorrt.prepare import normalize, prepare


def sample(model: ir.Model, seed: int) -> dict[str, np.ndarray]:
    (spec,) = [tensor_spec(value) for value in model.graph.inputs]
    return {spec.name: np.random.default_rng(seed).standard_normal(spec.shape).astype(np.float32)}


@pytest.fixture
def by_onnxruntime(tmp_path: Path) -> Callable[[ir.Model], ir.Model]:
    """Quantized by ONNX Runtime's own tool, every operator that it knows, symmetric."""
    tool = pytest.importorskip("onnxruntime.quantization")

    def quantized(model: ir.Model) -> ir.Model:
        class Reader(tool.CalibrationDataReader):  # type: ignore[name-defined, misc]
            def __init__(self) -> None:
                self._samples = iter([sample(model, seed) for seed in range(4)])

            def get_next(self) -> Any:
                return next(self._samples, None)

        ir.save(model, tmp_path / "float.onnx")
        kinds = {"activation_type": tool.QuantType.QInt8, "weight_type": tool.QuantType.QInt8, "per_channel": True}
        symmetric = {"ActivationSymmetric": True, "WeightSymmetric": True}
        files = tmp_path / "float.onnx", tmp_path / "int8.onnx"
        tool.quantize_static(*files, Reader(), quant_format=tool.QuantFormat.QDQ, extra_options=symmetric, **kinds)
        return ir.load(files[1])

    return quantized


def makers(node: ir.Node) -> list[str]:
    producers = [value.producer() if value is not None else None for value in node.inputs]
    return [producer.op_type if producer is not None else "" for producer in producers]


def named(model: ir.Model, name: str) -> ir.Node:
    return next(node for node in model.graph if node.name == name)


def test_a_transformers_norms_and_gelu_stay_in_their_kernels(
    small_graph: Any, by_onnxruntime: Any, make_bundle: Any
) -> None:
    model = by_onnxruntime(small_graph("transformer_block"))
    bundle, result = make_bundle(TARGET, model)
    assert result.proof["products"] == {"int8": 8} and not result.proof["not_as_asked"]
    assert any("rounded to 8 bits before nodes that compute in floats" in note for note in result.notes)
    layers = json.loads((bundle.path / "layers.json").read_text())

    def kernels(node: str) -> list[dict[str, Any]]:
        return [layer for layer in layers if node in layer["nodes"]]

    (gelu,) = kernels("erf_node")
    assert {"rooted_node", "erf1_node", "gate_node", "gelu_node"} <= set(gelu["nodes"]), (
        "one kernel from product to product"
    )
    assert "int8" not in gelu["reads"] and gelu["writes"] == ["int8"]
    for norm in ("norm1_node", "norm2_node"):
        (kernel,) = kernels(norm)
        assert kernel["kind"] == "kgen" and "int8" not in kernel["reads"] and "int8" in kernel["writes"]


def test_fewer_roundings_come_nearer(small_graph: Any, by_onnxruntime: Any) -> None:
    model = small_graph("transformer_block")
    foreign = by_onnxruntime(model)
    x = sample(model, 9)
    wanted = OnnxRunner(model).run(x)
    before, after = (OnnxRunner(each).run(x) for each in (foreign, prepare(foreign, "float32").model))
    near = [compare_outputs([wanted], [made])[0].sqnr_db or 0 for made in (before, after)]
    assert near[1] > near[0] + 0.3


def test_of_a_residual_sum_the_other_branch_is_rounded(small_graph: Any, by_onnxruntime: Any) -> None:
    foreign, _ = normalize(by_onnxruntime(small_graph("conv_net")))
    assert makers(named(foreign, "sum_node")) == ["DequantizeLinear", "DequantizeLinear"]
    DropRounding()(foreign)
    assert makers(named(foreign, "sum_node")) == ["Conv", "DequantizeLinear"]
    assert makers(named(foreign, "relu1_node")) == ["Conv"], "rounding comes after the activation"
    assert makers(named(foreign, "y_node"))[0] == "DequantizeLinear"


def test_rounding_moves_before_pools_and_concatenations(graph_maker: Any) -> None:
    """As tools write it that round the inputs of convolutions alone."""
    g = graph_maker()
    scale, zero = g.constant("scale", np.float32(0.05)), g.constant("zero", np.int8(0))
    left = g.add("Relu", ["x"], "left")
    pooled = g.add(
        "MaxPool",
        [g.add("Concat", [left, g.add("Neg", ["x"], "right")], "joined", axis=1)],
        "pool",
        kernel_shape=[2, 2],
    )
    g.add("DequantizeLinear", [g.add("QuantizeLinear", [pooled, scale, zero], "q"), scale, zero], "d")
    g.add("Conv", ["d", g.weights("w", 4, 8, 1, 1)], "y")
    model = g.model({"x": [1, 4, 6, 6]}, {"y": [1, 4, 5, 5]})
    moved = model.clone()
    assert RoundBeforePools()(moved).modified
    assert makers(named(moved, "pool_node")) == ["DequantizeLinear"]
    assert makers(named(moved, "joined_node")) == ["DequantizeLinear", "DequantizeLinear"]
    x = sample(model, 0)
    np.testing.assert_array_equal(OnnxRunner(model).run(x)["y"], OnnxRunner(moved).run(x)["y"])


@pytest.fixture
def upscaling(graph_maker: Any) -> ir.Model:
    g = graph_maker()
    x = g.add("Relu", [g.add("Conv", ["x", g.weights("w1", 32, 16, 1, 1)], "down")], "relu")
    x = g.add("ConvTranspose", [x, g.weights("w2", 32, 32, 2, 2)], "up", strides=[2, 2])
    g.add("Conv", [x, g.weights("w3", 8, 32, 1, 1)], "y")
    model = g.model({"x": [1, 16, 6, 6]}, {"y": [1, 8, 12, 12]})
    data = random_data([tensor_spec(value) for value in model.graph.inputs], 2, seed=0)
    spec = TARGET.quantization("int8", find_device("rtx-4070", "tensorrt"))
    return quantize(model, spec, data, allow_random=True).model


def test_a_transposed_convolution_computes_in_floats_where_no_kernel_takes_integers(
    upscaling: ir.Model, make_bundle: Any
) -> None:
    _, result = make_bundle(TARGET, upscaling)
    assert result.proof["products"] == {"float16": 1, "int8": 2} and not result.proof["not_as_asked"]
    assert any("left out there: up_node" in note for note in result.notes)
    bundle, _ = make_bundle(TARGET, upscaling, device="jetson-agx-orin", name="there")
    asked = json.loads((bundle.path / "build_settings.json").read_text())
    assert set(asked["products"].values()) == {"int8"}, "the device's own TensorRT has such kernels"


def test_our_own_graphs_and_constants_stay_as_they_are(small_graph: Any) -> None:
    """Weights alone in integers, and tables."""
    model = small_graph("transformer_block")
    data = random_data([tensor_spec(value) for value in model.graph.inputs], 2, seed=0)
    for scheme in ("int8", "w8"):
        spec = TARGET.quantization(scheme, find_device("rtx-4070", "tensorrt"))
        ours = quantize(model, spec, data, allow_random=True).model
        count = sum(node.op_type == "DequantizeLinear" for node in ours.graph)
        drop = DropRounding(("ConvTranspose",))
        drop(ours)
        assert not drop.dropped and sum(node.op_type == "DequantizeLinear" for node in ours.graph) == count > 5


def test_of_two_convolutions_one_is_rounded(graph_maker: Any, by_onnxruntime: Any) -> None:
    """By another tool both, by ours the second; in the end one."""
    g = graph_maker()
    left, right = (g.add("Conv", ["x", g.weights(f"w_{name}", 16, 16, 1, 1)], name) for name in ("left", "right"))
    x = g.add("Relu", [g.add("Add", [left, right], "sum")], "relu")
    g.add("Conv", [x, g.weights("w", 8, 16, 1, 1)], "y")
    model = g.model({"x": [1, 16, 6, 6]}, {"y": [1, 8, 6, 6]})
    foreign, _ = normalize(by_onnxruntime(model))
    spec = TARGET.quantization("int8", find_device("rtx-4070", "tensorrt"))
    data = random_data([tensor_spec(value) for value in model.graph.inputs], 2, seed=0)
    ours = quantize(model, spec, data, allow_random=True).model
    for each, roundings in ((foreign, 2), (ours, 1)):
        assert makers(named(each, "sum_node")).count("DequantizeLinear") == roundings
        DropRounding()(each)
        assert sorted(makers(named(each, "sum_node"))) == ["Conv", "DequantizeLinear"]


def written_out_norm(g: Any, x: str, width: int) -> str:
    """LayerNormalization as old exporters write it."""
    mean = g.add("ReduceMean", [x, g.constant("axes", np.array([-1]))], "mean")
    centred = g.add("Sub", [x, mean], "centred")
    square = g.add("Pow", [centred, g.constant("two", np.float32(2))], "square")
    variance = g.add("ReduceMean", [square, "axes"], "variance")
    root = g.add("Sqrt", [g.add("Add", [variance, g.constant("epsilon", np.float32(1e-5))], "safe")], "root")
    normed = g.add(
        "Mul", [g.add("Div", [centred, root], "normed"), g.constant("gain", np.ones(width, np.float32))], "gained"
    )
    return str(g.add("Add", [normed, g.weights("shift", width)], "normalized"))


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float32"])
def test_layer_normalization_is_one_kernel_written_out_or_not(
    precision: str, graph_maker: Any, make_bundle: Any
) -> None:
    """Attention in one kernel: ``test_separate.py``."""
    g = graph_maker()
    x = g.add("MatMul", [written_out_norm(g, "x", 64), g.weights("w", 64, 64)], "product")
    ones, zeros = g.constant("ones", np.ones(64, np.float32)), g.constant("zeros", np.zeros(64, np.float32))
    g.add("MatMul", [g.add("LayerNormalization", [x, ones, zeros], "norm", axis=-1), g.weights("w2", 64, 64)], "y")
    model = g.model({"x": [1, 16, 64]}, {"y": [1, 16, 64]})
    bundle, _ = make_bundle(TARGET, model, options={"precision": precision})
    layers = json.loads((bundle.path / "layers.json").read_text())
    parts = {f"{name}_node" for name in ("mean", "centred", "square", "variance", "root", "normed", "normalized")}
    holders = [layer["name"] for layer in layers if parts & set(layer["nodes"])]
    assert len(holders) == 1, holders
    assert sum("norm_node" in layer["nodes"] for layer in layers) == 1
