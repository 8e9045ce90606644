"""Products whose weights are too small for float16: scaled, exactly, and no longer computed in another type than asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets.tensorrt import TARGET
from edgewise.targets.tensorrt.emulate import RoundExplicitly
from edgewise.targets.tensorrt.prepare import prepare
from edgewise.targets.tensorrt.tiny_weights import ScaleTinyWeights


def layer_scaled(op: str, size: float, bias: float | None = None) -> ir.Model:
    """x + product(relu(x)), the product's weights of about ``size`` and its bias of about ``bias``."""
    random = np.random.default_rng(0)
    image = op in ("Conv", "ConvTranspose")
    shape = (16, 16, 1, 1) if image else (16, 16)
    arrays = {"w": random.standard_normal(shape) * size}
    if bias is not None:
        arrays["b"] = random.standard_normal(16) * bias
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node(op, ["r", *arrays], ["p"], name="product"),
        helper.make_node("Add", ["x", "p"], ["y"], name="sum"),
    ]
    dims = [2, 16, 6, 6] if image else [2, 16]
    graph = helper.make_graph(
        nodes,
        "scaled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, dims),
            helper.make_tensor_value_info("p", TensorProto.FLOAT, dims),
        ],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))


def sample(model: ir.Model) -> dict[str, np.ndarray]:
    shape = [int(str(dim)) for dim in model.graph.inputs[0].shape or ()]
    return {"x": np.random.default_rng(1).standard_normal(shape).astype(np.float32)}


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "Gemm", "MatMul"])
def test_scaling_by_a_power_of_two_is_exact(op: str) -> None:
    model = layer_scaled(op, 1e-6, None if op == "MatMul" else 1e-5)
    scaled = model.clone()
    assert ScaleTinyWeights()(scaled).modified
    assert [node.op_type for node in scaled.graph] == ["Relu", op, "Mul", "Add"]
    assert [value.name for value in scaled.graph.outputs] == ["y", "p"]
    onnx.checker.check_model(ir.to_proto(scaled), full_check=True)
    inputs = sample(model)
    for parity in compare_outputs([OnnxRunner(model).run(inputs)], [OnnxRunner(scaled).run(inputs)]):
        assert parity.sqnr_db > 130, parity


@pytest.mark.parametrize(
    ("size", "bias"), [(0.05, 0.1), (1e-5, 60000.0)], ids=["large enough", "its bias would overflow"]
)
def test_what_is_left_alone(size: float, bias: float) -> None:
    model = layer_scaled("Conv", size, bias)
    assert not ScaleTinyWeights()(model).modified


def test_shared_weights_are_scaled_once_for_all_their_readers() -> None:
    model = layer_scaled("MatMul", 1e-6)
    first = next(node for node in model.graph if node.name == "product")
    again = ir.node("MatMul", [first.outputs[0], first.inputs[1]], name="again")
    again.outputs[0].name = "q"
    model.graph.insert_after(first, again)
    scaled = model.clone()
    ScaleTinyWeights()(scaled)
    assert sum(name.startswith("w_times_2") for name in scaled.graph.initializers) == 1
    assert [node.op_type for node in scaled.graph].count("Mul") == 2


def test_float16_keeps_their_digits() -> None:
    """As float16 numbers these weights would have two or three bits."""
    model = layer_scaled("Conv", 1e-6, 1e-6)
    prepared = prepare(model, "float16")
    assert "product" not in prepared.kept
    rounded = prepared.model.clone()
    RoundExplicitly()(rounded)
    inputs = sample(model)
    parity = {p.name: p for p in compare_outputs([OnnxRunner(model).run(inputs)], [OnnxRunner(rounded).run(inputs)])}
    assert parity["p"].sqnr_db > 25, "the product itself is as small as float16 goes"
    assert parity["y"].sqnr_db > 60


@pytest.mark.parametrize("bias", [None, 0.1, 1e-6])
def test_the_engine_computes_them_in_float16(bias: float | None, make_bundle: Any) -> None:
    """Left in float32 between casts, TensorRT for RTX computes the convolution in float16, which fails the build."""
    _, result = make_bundle(TARGET, layer_scaled("Conv", 1e-6, bias))
    assert result.proof["products"] == {"float16": 1} and result.proof["not_as_asked"] == []


def test_a_float32_product_with_the_cast_inside_counts_as_float32(make_bundle: Any) -> None:
    """Its kernel reads float16 and has float32 weights."""
    model = layer_scaled("MatMul", 0.1)
    _, result = make_bundle(TARGET, model, options={"keep_float32": ["product"]})
    assert result.proof["products"] == {"float32": 1} and result.proof["not_as_asked"] == []
