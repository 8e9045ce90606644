"""Ranks above 5: operators along one axis and stacks of products compute on views of three axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_runner import OnnxRunner

RNG = np.random.default_rng(2)
SHAPE = [2, 3, 2, 2, 4, 6]
FLAT = [6, 96]
# Operator, attributes, further inputs as constants, number of outputs.
CASES: list[tuple[str, dict[str, Any], list[np.ndarray], int]] = [
    ("Split", {"axis": 3, "num_outputs": 2}, [], 2),
    ("Split", {"axis": 5}, [np.array([1, 5])], 2),
    ("Softmax", {"axis": 2}, [], 1),
    ("LogSoftmax", {"axis": -1}, [], 1),
    ("ReduceMean", {"keepdims": 0}, [np.array([2, 3])], 1),
    ("ReduceMean", {"keepdims": 0}, [np.array([2, 5])], 1),
    ("ReduceSum", {"keepdims": 1}, [np.array([0, -1])], 1),
    ("ReduceL2", {"keepdims": 0}, [np.array([3, 4])], 1),
    ("ReduceMax", {"keepdims": 1}, [np.array([-1])], 1),
    ("Concat", {"axis": 4}, [RNG.standard_normal(SHAPE).astype(np.float32)], 1),
    ("MatMul", {}, [RNG.standard_normal((6, 5)).astype(np.float32)], 1),
]


def network(op: str, attributes: dict[str, Any], constants: list[np.ndarray], outputs: int) -> ir.Model:
    """x [6, 96] → six axes → the operator → two axes."""
    names = [f"c{index}" for index in range(len(constants))]
    made = [f"m{index}" for index in range(outputs)]
    arrays = {"six": np.array(SHAPE), "two": np.array([6, -1])} | dict(zip(names, constants, strict=True))
    nodes = [
        helper.make_node("Reshape", ["x", "six"], ["t"], name="view"),
        helper.make_node(op, ["t", *names], made, name="case", **attributes),
        *(helper.make_node("Reshape", [name, "two"], [f"y{i}"], name=f"back{i}") for i, name in enumerate(made)),
    ]
    return _model(nodes, arrays, len(made))


def _model(nodes: list[Any], arrays: dict[str, np.ndarray], outputs: int) -> ir.Model:
    ports = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, [6, None]) for i in range(outputs)]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, FLAT)
    graph = helper.make_graph(nodes, "g", [x], ports, [numpy_helper.from_array(a, n) for n, a in arrays.items()])
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


def check(model: ir.Model, build_model: Callable[..., Any]) -> None:
    executor, _, _ = build_model(model, compute_precision="float32")
    x = {"x": RNG.standard_normal(FLAT).astype(np.float32)}
    want = OnnxRunner(model, optimize=False).run(x)
    assert all(parity.sqnr_db >= 100 for parity in compare_outputs([want], [executor.run(x)]))


@pytest.mark.parametrize("case", CASES, ids=[f"{case[0]}_{place}" for place, case in enumerate(CASES)])
def test_six_axes(case: tuple[str, dict[str, Any], list[np.ndarray], int], build_model: Callable[..., Any]) -> None:
    check(network(*case), build_model)


def test_a_product_of_two_stacks(build_model: Callable[..., Any]) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "six"], ["t"], name="view"),
        helper.make_node("Transpose", ["t"], ["turned"], name="turn", perm=[0, 1, 2, 3, 5, 4]),
        helper.make_node("MatMul", ["t", "turned"], ["m"], name="product"),
        helper.make_node("Reshape", ["m", "two"], ["y0"], name="back"),
    ]
    check(_model(nodes, {"six": np.array(SHAPE), "two": np.array([6, -1])}, 1), build_model)


def test_indices_that_make_six_axes(build_model: Callable[..., Any]) -> None:
    """As an adaptive pool exports: every window's places at once."""
    places = np.stack(np.meshgrid(*[np.arange(2)] * 4, indexing="ij"), axis=-1)[..., :2]
    nodes = [
        helper.make_node("Reshape", ["x", "four"], ["t"], name="view"),
        helper.make_node("GatherND", ["t", "places"], ["m"], name="gather"),
        helper.make_node("ReduceMean", ["m", "window"], ["r"], name="mean", keepdims=0),
        helper.make_node("Reshape", ["r", "two"], ["y0"], name="back"),
    ]
    arrays = {"four": np.array([2, 3, 4, 24]), "places": places, "window": np.array([2, 3]), "two": np.array([6, -1])}
    check(_model(nodes, arrays, 1), build_model)
