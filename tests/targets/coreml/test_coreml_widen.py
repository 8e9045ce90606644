"""Dtypes that Core ML does not compute in: wider inside, the network's own outside, wrapped around as ONNX does, and noted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from edgewise.runtime.onnx_runner import OnnxRunner


def model(nodes: list[onnx.NodeProto], kind: str, constants: dict[str, np.ndarray] | None = None) -> onnx.ModelProto:
    """Of one input ``x`` and one output ``y``, both of a dtype."""
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    ports = [helper.make_tensor_value_info(name, dtype, [2, 4]) for name in ("x", "y")]
    held = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize(
    ("kind", "ios"),
    [("int8", "iOS17"), ("uint8", "iOS17"), ("uint8", "iOS16"), ("int16", "iOS16"), ("uint16", "iOS18")],
)
def test_small_integers_wrap_around(build_model: Callable[..., Any], kind: str, ios: str) -> None:
    info = np.iinfo(kind)
    x = np.array([[info.min, info.max, 1, 2], [3, 100, info.max - 1, info.min + 1]], kind)
    nodes = [
        helper.make_node("Add", ["x", "c"], ["a"]),
        helper.make_node("Mul", ["a", "a"], ["m"]),
        helper.make_node("Max", ["m", "c"], ["y"]),
    ]
    executor, result, _ = build_model(model(nodes, kind, {"c": np.array([7], kind)}), minimum_deployment_target=ios)
    made = executor.run({"x": x})["y"]
    sums = x + np.array([7], kind)
    np.testing.assert_array_equal(made, np.maximum(sums * sums, np.array([7], kind)))
    assert made.dtype == np.dtype(kind)
    if kind != "int8" and ios != "iOS17":
        assert any(f"{kind} is int32 in Core ML" in note for note in result.notes)


def test_a_cast_to_fewer_bits_keeps_the_lowest(build_model: Callable[..., Any]) -> None:
    x = np.array([[0, 255, 256, -1], [70000, -129, 2**30, 128]], np.int32)
    for kind, code in (
        ("int8", onnx.TensorProto.INT8),
        ("int16", onnx.TensorProto.INT16),
        ("uint16", onnx.TensorProto.UINT16),
    ):
        nodes = [
            helper.make_node("Cast", ["x"], ["s"], to=code),
            helper.make_node("Cast", ["s"], ["y"], to=onnx.TensorProto.INT32),
        ]
        executor, _, _ = build_model(model(nodes, "int32"))
        np.testing.assert_array_equal(executor.run({"x": x})["y"], x.astype(kind).astype(np.int32))


def test_float64_computes_in_float32(build_model: Callable[..., Any]) -> None:
    proto = model(
        [helper.make_node("Mul", ["x", "c"], ["m"]), helper.make_node("Max", ["m", "least"], ["y"])],
        "float64",
        {"c": np.array([1.5, -2, 1e-3, 4]), "least": np.array(-1.7e308)},
    )
    graph = ir.from_proto(proto)
    executor, result, _ = build_model(graph, compute_precision="float32")
    x = np.random.default_rng(0).standard_normal((2, 4))
    made = executor.run({"x": x})["y"]
    want = OnnxRunner(ir.from_proto(proto)).run({"x": x})["y"]
    assert made.dtype == np.float64
    np.testing.assert_allclose(made, want, rtol=1e-6)
    assert "float64 is float32 in Core ML: 5 tensors" in result.notes
    assert result.settings["inputs"][0]["dtype"] == "float64"
    assert (
        graph.graph.initializers["c"].dtype == graph.graph.outputs[0].dtype == ir.DataType.DOUBLE
    )  # the caller's graph


def test_bytes_that_are_quantized_stay_bytes(build_model: Callable[..., Any]) -> None:
    """A pool of quantized values computes in floats, which hold them exactly; the grids around it stay."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("Unsqueeze", ["q", "axes"], ["u"]),
        helper.make_node("MaxPool", ["u"], ["p"], kernel_shape=[3], pads=[1, 1]),
        helper.make_node("Squeeze", ["p", "axes"], ["s"]),
        helper.make_node("DequantizeLinear", ["s", "scale", "zero"], ["y"]),
    ]
    constants = {"scale": np.float32(0.05), "zero": np.uint8(100), "axes": np.array([0], np.int64)}
    proto = model(nodes, "float32", {name: np.asarray(array) for name, array in constants.items()})
    executor, result, _ = build_model(proto)
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    np.testing.assert_allclose(
        executor.run({"x": x})["y"], OnnxRunner(ir.from_proto(proto)).run({"x": x})["y"], atol=2e-3
    )
    assert {"quantize", "dequantize"} <= {layer["op"] for layer in result.layers}
