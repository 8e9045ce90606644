"""Weights in 4 or 8 bits, FP8 and bfloat16: which GPUs take them, and what the engines multiply."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewise.quantize import quantize
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.data import random_data
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets import Executor, TargetError, find_device
from edgewise.targets.nodes import tensor_spec
from edgewise.targets.tensorrt import TARGET
from edgewise.targets.tensorrt.prepare import prepare
from edgewise.targets.tensorrt.weight_scales import ShortWeightScales

DEVICES = {75: "t4", 86: "rtx-3060", 89: "rtx-4070", 120: "rtx-5080"}


@pytest.fixture(scope="module")
def mlp() -> ir.Model:
    """x [1,8,256] → MatMul, Relu, MatMul → y [1,8,256]."""
    random = np.random.default_rng(0)
    weights = {"w1": random.standard_normal((256, 512)) / 16, "w2": random.standard_normal((512, 256)) / 22}
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("MatMul", ["b", "w2"], ["y"], name="second"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8, 256]) for name in "xy"]
    constants = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "mlp", ends[:1], ends[1:], constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def in_scheme(model: ir.Model, scheme: str, device: str = "rtx-4070") -> ir.Model:
    spec = TARGET.quantization(scheme, find_device(device, "tensorrt"))
    data = random_data([tensor_spec(value) for value in model.graph.inputs], 4, seed=0)
    return quantize(model, spec, data, samples=4, allow_random=True).model


@pytest.mark.parametrize(("scheme", "db"), [("w4g128", 15), ("w8", 38)])
def test_small_weights_are_widened_inside_the_product(mlp: ir.Model, scheme: str, db: float, make_bundle: Any) -> None:
    bundle, result = make_bundle(TARGET, in_scheme(mlp, scheme))
    assert result.proof["products"] == {"float16": 2}
    holders = [layer for layer in result.layers if "MatMul" in layer["op"]]
    assert len(holders) == 2 and all("DequantizeLinear" in layer["op"] for layer in holders), result.layers
    inputs = {"x": np.random.default_rng(1).standard_normal((1, 8, 256)).astype(np.float32)}
    executor = TARGET.executor(bundle)
    assert isinstance(executor, Executor)
    parity = compare_outputs([OnnxRunner(mlp).run(inputs)], [executor.run(inputs)])[0]
    assert db < parity.sqnr_db < db + 14


@pytest.mark.parametrize(
    ("scheme", "least", "product"),
    [("w4g128", 80, "float16"), ("fp8", 89, "float8"), ("bf16", 80, "bfloat16"), ("w8", 75, "float16")],
)
def test_which_gpus_take_a_scheme(mlp: ir.Model, scheme: str, least: int, product: str, make_bundle: Any) -> None:
    """What we refuse is what the builder refuses, and the others build."""
    formed = in_scheme(mlp, scheme)
    for sm, device in DEVICES.items():
        if sm >= least:
            assert in_scheme(mlp, scheme, device) is not None
            assert make_bundle(TARGET, formed, device=device)[1].proof["products"] == {product: 2}, device
            continue
        with pytest.raises(TargetError, match=rf"scheme {scheme}.*\(SM{sm}\).*expected {least / 10:g} or later"):
            TARGET.quantization(scheme, find_device(device, "tensorrt"))
        with pytest.raises(TargetError, match=rf"Cannot compile for target\(s\) sm{sm}"):
            make_bundle(TARGET, formed, device=device)


def test_scales_too_small_for_float16_stay(mlp: ir.Model) -> None:
    model = in_scheme(mlp, "w8")
    scale = model.graph.initializers["w1_scale"]
    scale.const_value = ir.tensor(np.full(512, 1e-7, np.float32), name="w1_scale")
    made = prepare(model, "float16").model
    dtypes = {node.name: node.outputs[0].dtype for node in made.graph if node.op_type == "DequantizeLinear"}
    assert sorted(str(dtype) for dtype in dtypes.values()) == ["FLOAT", "FLOAT16"]


def test_scales_of_integer_products_stay_float32(mlp: ir.Model) -> None:
    made = prepare(in_scheme(mlp, "int8"), "float16").model
    assert not ShortWeightScales()(made).modified
    assert {node.outputs[0].dtype for node in made.graph if node.op_type == "DequantizeLinear"} == {ir.DataType.FLOAT}
