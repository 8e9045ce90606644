"""Groups of nodes that become one operation, and tensors of more axes than Core ML has."""

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
from onnx import TensorProto, helper, numpy_helper

from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets import TargetError
from edgewise.targets.base import BuildResult, Executor

RNG = np.random.default_rng(17)
BuildModel = Callable[..., tuple[Executor, BuildResult, Path]]
F = TensorProto.FLOAT


def model_of(
    nodes: list[Any], inputs: dict[str, list[Any]], constants: dict[str, Any], output: str = "y", opset: int = 18
) -> ir.Model:
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    ports = [helper.make_tensor_value_info(name, F, shape) for name, shape in inputs.items()]
    graph = helper.make_graph(nodes, "g", ports, [helper.make_tensor_value_info(output, F, None)], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model, data_prop=True))


def operations(result: BuildResult) -> Counter[str]:
    return Counter(layer["op"] for layer in result.layers)


def check(model: ir.Model, executor: Executor, shapes: dict[str, list[int]], sqnr_db: float = 90) -> None:
    inputs = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    reference = OnnxRunner(model, optimize=False).run(inputs)
    for parity in compare_outputs([reference], [executor.run(inputs)]):
        assert parity.sqnr_db >= sqnr_db


def attention(mask: bool = False, scales: str = "both", transposed_keys: bool = True, batch: Any = 2) -> ir.Model:
    """Heads of 16 as PyTorch's exporter writes them: a factor on both sides, or one on the product."""
    half, whole = np.float32(16**-0.25), np.float32(0.3)
    nodes = []
    q, k = "q", "k"
    if transposed_keys:
        nodes.append(helper.make_node("Transpose", ["k"], ["kt"], name="turn", perm=[0, 2, 3, 1]))
        k = "kt"
    if scales == "both":
        nodes += [helper.make_node("Mul", ["q", "half"], ["qs"]), helper.make_node("Mul", ["half", k], ["ks"])]
        q, k = "qs", "ks"
    nodes.append(helper.make_node("MatMul", [q, k], ["scores"], name="scores"))
    scores = "scores"
    if scales == "product":
        nodes.append(helper.make_node("Div", ["scores", "whole"], ["scaled"]))
        scores = "scaled"
    if mask:
        nodes.append(helper.make_node("Add", ["mask", scores], ["masked"]))
        scores = "masked"
    nodes += [
        helper.make_node("Softmax", [scores], ["p"], name="softmax", axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["y"], name="mix"),
    ]
    shapes = {
        "q": [batch, 3, 5, 16],
        "k": [batch, 7, 3, 16] if transposed_keys else [batch, 3, 16, 7],
        "v": [batch, 3, 7, 16],
    }
    return model_of(nodes, shapes | ({"mask": [1, 1, 1, 7]} if mask else {}), {"half": half, "whole": whole})


def shapes_of(model: ir.Model, dynamic: int = 2) -> dict[str, list[int]]:
    return {
        value.name or "": [dim if isinstance(dim, int) else dynamic for dim in value.shape or ()]
        for value in model.graph.inputs
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mask": True},
        {"scales": "product", "mask": True},
        {"scales": "none"},
        {"transposed_keys": False},
        {"batch": "n"},
    ],
    ids=str,
)
def test_attention_is_one_operation_from_ios_18_on(build_model: BuildModel, options: dict[str, Any]) -> None:
    model = attention(**options)
    sizes = {"dims": {"n": {"max": 8}}} if "batch" in options else {}
    executor, result, _ = build_model(model, **sizes, minimum_deployment_target="iOS18", compute_precision="float32")
    found = operations(result)
    assert found["scaled_dot_product_attention"] == 1
    assert found["softmax"] == found["matmul"] == 0
    check(model, executor, shapes_of(model))


def test_attention_before_ios_18_stays_as_it_is(build_model: BuildModel) -> None:
    executor, result, _ = build_model(attention(mask=True), compute_precision="float32")
    assert operations(result)["softmax"] == 1
    check(attention(mask=True), executor, shapes_of(attention(mask=True)))


def test_attention_whose_weights_are_read_is_not_fused(build_model: BuildModel) -> None:
    model = attention()
    weights = next(node for node in model.graph if node.name == "softmax").outputs[0]
    weights.dtype = ir.DataType.FLOAT
    model.graph.outputs.append(weights)
    executor, result, _ = build_model(model, minimum_deployment_target="iOS18", compute_precision="float32")
    assert operations(result)["scaled_dot_product_attention"] == 0
    check(model, executor, shapes_of(model))


def test_gelu_and_silu_are_one_operation(build_model: BuildModel) -> None:
    nodes = [
        helper.make_node("Div", ["x", "root"], ["a"]),
        helper.make_node("Erf", ["a"], ["b"]),
        helper.make_node("Add", ["b", "one"], ["c"]),
        helper.make_node("Mul", ["x", "c"], ["d"]),
        helper.make_node("Mul", ["d", "half"], ["g"]),
        helper.make_node("Sigmoid", ["g"], ["s"]),
        helper.make_node("Mul", ["g", "s"], ["y"]),
    ]
    constants = {"root": np.float32(np.sqrt(2)), "one": np.float32(1), "half": np.float32(0.5)}
    model = model_of(nodes, {"x": [3, 8]}, constants)
    executor, result, _ = build_model(model, compute_precision="float32")
    assert operations(result) == {"gelu": 1, "silu": 1}
    check(model, executor, {"x": [3, 8]})


def windows() -> ir.Model:
    """Swin's windows: rank 6 on the way."""
    nodes = [
        helper.make_node("Reshape", ["x", "split"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[0, 1, 3, 2, 4, 5]),
        helper.make_node("Reshape", ["b", "join"], ["y"]),
    ]
    constants = {"split": np.array([-1, 2, 4, 3, 4, 5]), "join": np.array([-1, 16, 5])}
    return model_of(nodes, {"x": ["n", 8, 12, 5]}, constants)


def test_windows_of_rank_6_with_a_flexible_batch(build_model: BuildModel) -> None:
    executor, _, _ = build_model(windows(), compute_precision="float32", dims={"n": {"max": 8}})
    check(windows(), executor, {"x": [3, 8, 12, 5]})


def test_elements_of_rank_6_are_added_and_gathered(build_model: BuildModel) -> None:
    """Relative positions (MViT), and the columns of an unfolded image: two gathers with tables of indices."""
    table = np.arange(3)[:, None] + np.arange(4)[None, :]
    nodes = [
        helper.make_node("Gather", ["x", "table"], ["rows"], axis=2),
        helper.make_node("Gather", ["rows", "table"], ["blocks"], axis=4),
        helper.make_node("Unsqueeze", ["bias", "axes"], ["wide"]),
        helper.make_node("Add", ["blocks", "wide"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["positive"]),
        helper.make_node("Transpose", ["positive"], ["turned"], perm=[0, 1, 2, 4, 3, 5]),
        helper.make_node("Reshape", ["turned", "columns"], ["y"]),
    ]
    constants = {"table": table, "axes": np.array([0, 5]), "columns": np.array([1, 18, 16])}
    model = model_of(nodes, {"x": [1, 2, 6, 6], "bias": [2, 3, 4, 3]}, constants)
    executor, _, _ = build_model(model, compute_precision="float32")
    check(model, executor, {"x": [1, 2, 6, 6], "bias": [2, 3, 4, 3]})


def test_rank_6_is_no_output(build_model: BuildModel) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    with pytest.raises(TargetError, match="rank 6"):
        build_model(model_of(nodes, {"x": [4, 4]}, {"shape": np.array([1, 2, 2, 1, 2, 2])}))


@settings(max_examples=4, derandomize=True)
@given(
    st.lists(
        st.integers(6, 7).flatmap(lambda rank: st.tuples(st.permutations(range(rank)), st.lists(st.integers(1, 3), min_size=rank, max_size=rank))),
        min_size=6, max_size=6,
    )
)  # fmt: skip
def test_any_transpose_of_high_rank(build_model: BuildModel, turns: list[tuple[list[int], list[int]]]) -> None:
    """Several at once: a conversion costs more than a transpose."""
    nodes, inputs, constants = [], {}, {}
    for index, (perm, dims) in enumerate(turns):
        x, size = f"x{index}", int(np.prod(dims))
        inputs[x] = [size]
        constants |= {f"split{index}": np.array(dims), f"flat{index}": np.array([size])}
        nodes += [
            helper.make_node("Reshape", [x, f"split{index}"], [f"a{index}"]),
            helper.make_node("Transpose", [f"a{index}"], [f"b{index}"], perm=perm),
            helper.make_node("Reshape", [f"b{index}", f"flat{index}"], [f"c{index}"]),
        ]
    nodes.append(helper.make_node("Concat", [f"c{index}" for index in range(len(turns))], ["y"], axis=0))
    model = model_of(nodes, inputs, constants)
    executor, _, _ = build_model(model, compute_precision="float32")
    check(model, executor, inputs, np.inf)
