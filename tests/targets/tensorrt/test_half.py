"""float16 in the graph: what is cast, what stays, and that the numbers hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgewise.quantize.passes.cast_floats import CastFloats, kept_summary
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets.tensorrt.emulate import RoundExplicitly
from edgewise.targets.tensorrt.prepare import prepare

HALF, FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT


def emulated(model: ir.Model) -> OnnxRunner:
    copy = model.clone()
    RoundExplicitly()(copy)
    return OnnxRunner(copy)


def ops(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def output_dtypes(model: ir.Model, op: str) -> set[ir.DataType | None]:
    return {node.outputs[0].dtype for node in model.graph if node.op_type == op}


@pytest.mark.parametrize("name", ["conv_net", "dynamic_batch", "transformer_block"])
def test_a_float16_graph_is_valid_and_computes_the_same(name: str, small_graph: Callable[[str], ir.Model]) -> None:
    source = small_graph(name)
    prepared = prepare(source, "float16")
    onnx.checker.check_model(ir.to_proto(prepared.model), full_check=True)
    assert [value.dtype for value in prepared.model.graph.inputs] == [value.dtype for value in source.graph.inputs]
    assert [(value.name, value.dtype) for value in prepared.model.graph.outputs] == [("y", FLOAT)]
    random = np.random.default_rng(5)
    shape = [dim if isinstance(dim, int) else 3 for dim in source.graph.inputs[0].shape or ()]
    samples = [{"x": random.standard_normal(shape).astype(np.float32)} for _ in range(3)]
    expected, found = OnnxRunner(source), emulated(prepared.model)
    for parity in compare_outputs([expected.run(s) for s in samples], [found.run(s) for s in samples]):
        assert 50 < parity.sqnr_db < 100, "close, and yet not float32 in disguise"


def test_layers_compute_in_half_and_sums_in_float(small_graph: Callable[[str], ir.Model]) -> None:
    prepared = prepare(small_graph("transformer_block"), "float16")
    for op in ("MatMul", "Add", "Erf", "Mul", "Transpose", "Reshape"):
        assert output_dtypes(prepared.model, op) == {HALF}, op
    for op in ("LayerNormalization", "Softmax"):
        assert output_dtypes(prepared.model, op) == {FLOAT}, op
    assert list(kept_summary(prepared.kept)) == [
        "2 × LayerNormalization is computed in float32",
        "1 × Softmax is computed in float32",
    ]


def test_float32_is_left_alone(small_graph: Callable[[str], ir.Model]) -> None:
    prepared = prepare(small_graph("transformer_block"), "float32")
    assert "Cast" not in ops(prepared.model)
    assert prepared.kept == {}


def test_a_value_is_cast_once_however_many_read_it(graph_maker: Any) -> None:
    g = graph_maker()
    for name in ("a", "b", "c"):
        g.add("Relu", ["x"], name)
    g.add("Sum", ["a", "b", "c"], "y")
    model = prepare(g.model({"x": [4]}, {"y": [4]}), "float16").model
    assert ops(model) == {"Cast": 2, "Relu": 3, "Sum": 1}


def test_an_output_that_is_read_inside_as_well_keeps_its_name(graph_maker: Any) -> None:
    g = graph_maker()
    g.add("Relu", ["x"], "y")
    g.add("Neg", ["y"], "z")
    model = prepare(g.model({"x": [4]}, {"y": [4], "z": [4]}), "float16").model
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert [(value.name, value.dtype) for value in model.graph.outputs] == [("y", FLOAT), ("z", FLOAT)]
    found = emulated(model).run({"x": np.float32([-1, 0, 1, 1.0001])})
    np.testing.assert_array_equal(found["y"], np.float32([0, 0, 1, 1]))
    np.testing.assert_array_equal(found["z"], np.float32([0, 0, -1, -1]))


@pytest.mark.parametrize(
    ("op", "constant", "reason"),
    [
        ("Mul", 1e5, "a constant is too large for float16"),
        ("Add", 1e-6, "a constant is too small for float16"),
        ("Mul", 300.0, None),
        ("Add", float("-inf"), None),
    ],
)
def test_constants_that_do_not_fit_keep_their_node_in_float(
    op: str, constant: float, reason: str | None, graph_maker: Any
) -> None:
    g = graph_maker()
    g.add(op, ["x", g.constant("k", np.float32([constant]))], "y")
    prepared = prepare(g.model({"x": [4]}, {"y": [4]}), "float16")
    assert prepared.kept.get("y_node") == reason
    assert output_dtypes(prepared.model, op) == {FLOAT if reason else HALF}


def test_what_a_large_constant_made_stays_in_float_up_to_softmax(graph_maker: Any) -> None:
    """The mask of a transformer: (1 − mask) × −3.4e38 would be −inf in float16, and NaN where a row is masked whole."""
    g = graph_maker()
    g.add("Sub", [g.constant("one", np.float32(1)), "mask"], "inverse")
    g.add("Mul", ["inverse", g.constant("low", np.float32(np.finfo(np.float32).min))], "bias")
    g.add("Reshape", ["bias", g.constant("shape", np.int64([1, 4]))], "row")
    g.add("Add", ["x", "row"], "masked")
    g.add("Softmax", ["masked"], "p")
    g.add("Mul", ["p", "p2"], "y")
    model = g.model({"x": [1, 4], "mask": [4], "p2": [1, 4]}, {"y": [1, 4]})
    prepared = prepare(model, "float16")
    assert set(prepared.kept) == {"bias_node", "masked_node", "p_node"}
    inputs = {"x": np.float32([[1, 2, 3, 4]]), "mask": np.zeros(4, np.float32), "p2": np.ones((1, 4), np.float32)}
    np.testing.assert_allclose(emulated(prepared.model).run(inputs)["y"], OnnxRunner(model).run(inputs)["y"], atol=1e-3)
    assert not np.isnan(emulated(prepared.model).run(inputs)["y"]).any()


def test_what_was_asked_for_stays_in_float_with_what_carries_its_range_on(graph_maker: Any) -> None:
    """Scores beyond 65504 before they are scaled: kept in float32 up to Softmax, on request."""
    g = graph_maker()
    g.add("MatMul", ["x", g.constant("w", np.full((4, 4), 300, np.float32))], "scores")
    g.add("Mul", ["scores", g.constant("scale", np.float32(0.001))], "scaled")
    g.add("Softmax", ["scaled"], "p")
    g.add("Mul", ["p", g.constant("two", np.float32(2))], "y")
    model = g.model({"x": [1, 4]}, {"y": [1, 4]})
    inputs = {"x": np.float32([[100, 200, 300, 400]])}
    assert np.isnan(emulated(prepare(model, "float16").model).run(inputs)["y"]).any()
    prepared = prepare(model, "float16", ["scores_node"])
    assert set(prepared.kept) == {"scores_node", "scaled_node", "p_node"}
    assert prepared.kept["scores_node"] == "it was asked for"
    np.testing.assert_allclose(emulated(prepared.model).run(inputs)["y"], OnnxRunner(model).run(inputs)["y"], rtol=1e-3)


def test_squares_and_computed_divisors_stay_in_float(graph_maker: Any) -> None:
    g = graph_maker()
    g.add("Mul", ["x", "x"], "square")
    g.add("Div", ["x", "square"], "computed")
    g.add("Div", ["computed", g.constant("two", np.float32(2))], "y")
    prepared = prepare(g.model({"x": [4]}, {"y": [4]}), "float16")
    assert prepared.kept == {"square_node": "it squares its input", "computed_node": "it divides by a computed tensor"}


def test_scales_of_resize_and_shapes_are_no_business_of_it(graph_maker: Any) -> None:
    g = graph_maker()
    g.add("Relu", ["x"], "a")
    g.add("Shape", ["a"], "shape")
    g.add("Resize", ["a", "", g.constant("scales", np.float32([1, 1, 2, 2]))], "big", mode="nearest")
    g.add("Cast", ["shape"], "lengths", to=int(TensorProto.FLOAT))
    g.add("ReduceSum", ["lengths"], "total", keepdims=0)
    g.add("Mul", ["big", "total"], "y")
    model = g.model({"x": [1, 2, 4, 4]}, {"y": [1, 2, 8, 8]})
    prepared = prepare(model, "float16")
    onnx.checker.check_model(ir.to_proto(prepared.model), full_check=True)
    resize = next(node for node in prepared.model.graph if node.op_type == "Resize")
    assert [value.dtype if value else None for value in resize.inputs] == [HALF, None, FLOAT]
    inputs = {"x": np.random.default_rng(0).standard_normal((1, 2, 4, 4)).astype(np.float32)}
    np.testing.assert_allclose(emulated(prepared.model).run(inputs)["y"], OnnxRunner(model).run(inputs)["y"], rtol=2e-3)


def test_moves_follow_their_data(graph_maker: Any) -> None:
    """No cast there and back around what only moves float32 values."""
    g = graph_maker()
    g.add("Softmax", ["x"], "p")
    g.add("Transpose", ["p"], "t", perm=[1, 0])
    g.add("Exp", ["t"], "y")
    model = prepare(g.model({"x": [2, 3]}, {"y": [3, 2]}), "float16").model
    assert "Cast" not in ops(model)


def test_quantized_parts_keep_their_float32_scales(graph_maker: Any) -> None:
    g = graph_maker()
    g.constant("s", np.float32(0.05)), g.constant("z", np.int8(0))
    g.add("QuantizeLinear", ["x", "s", "z"], "q")
    g.add("DequantizeLinear", ["q", "s", "z"], "d")
    g.constant("wi", np.arange(-6, 6, dtype=np.int8).reshape(3, 4)), g.constant("ws", np.full(4, 0.1, np.float32))
    g.add("DequantizeLinear", ["wi", "ws"], "w", axis=1)
    g.add("MatMul", ["d", "w"], "y")
    model = g.model({"x": [2, 3]}, {"y": [2, 4]})
    prepared = prepare(model, "float16")
    onnx.checker.check_model(ir.to_proto(prepared.model), full_check=True)
    assert output_dtypes(prepared.model, "DequantizeLinear") == {FLOAT}
    assert output_dtypes(prepared.model, "MatMul") == {HALF}
    assert prepared.kept == {}, "that scales stay as they are needs no mention"
    inputs = {"x": np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)}
    np.testing.assert_allclose(emulated(prepared.model).run(inputs)["y"], OnnxRunner(model).run(inputs)["y"], atol=2e-3)


def test_bodies_of_control_flow_read_float32(graph_maker: Any) -> None:
    """A branch captures a tensor that computes in float16 outside."""
    branches = {
        name: helper.make_graph(
            [helper.make_node(op, ["outer"], [f"{name}_out"], name=f"{name}_op")],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [4])],
        )
        for name, op in (("then", "Exp"), ("else", "Neg"))
    }
    g = graph_maker()
    g.add("Relu", ["x"], "outer")
    g.add("ReduceMax", ["x"], "most", keepdims=0)
    g.add("Cast", ["most"], "flag", to=int(TensorProto.BOOL))
    g.add("If", ["flag"], "y", then_branch=branches["then"], else_branch=branches["else"])
    model = g.model({"x": [4]}, {"y": [4]})
    prepared = prepare(model, "float16")
    onnx.checker.check_model(ir.to_proto(prepared.model), full_check=True)
    inputs = {"x": np.float32([0.5, 1, -1, 2])}
    np.testing.assert_allclose(emulated(prepared.model).run(inputs)["y"], OnnxRunner(model).run(inputs)["y"], rtol=1e-3)


def test_a_graph_that_is_float16_already_is_left_alone() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"], name="r"), helper.make_node("Softmax", ["a"], ["y"], name="s")]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, [2, 4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model = prepare(ir.from_proto(proto), "float16").model
    assert ops(model) == {"Relu": 1, "Softmax": 1}
    inputs = {"x": np.float16([[1, 2, 3, 4], [0, 0, 0, 65504]])}
    found = emulated(model).run(inputs)["y"]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.sum(axis=1), [1, 1], atol=1e-2)


def test_rounding_is_explicit_where_onnx_runtime_would_skip_it(graph_maker: Any) -> None:
    """300 × 300 overflows float16. Left to itself, ONNX Runtime's CPU provider computes it in float32 unnoticed."""
    g = graph_maker()
    g.constant("k", np.float32(300)), g.constant("r", np.float32(0.001))
    g.add("Mul", [g.add("Mul", [g.add("Mul", ["x", "k"], "a"), "k"], "b"), "r"], "y")
    model = prepare(g.model({"x": [2]}, {"y": [2]}), "float16").model
    inputs = {"x": np.float32([0.1, 1.0])}
    assert np.isfinite(OnnxRunner(model).run(inputs)["y"]).all(), "if this fails, ONNX Runtime has learned to round"
    assert np.isinf(emulated(model).run(inputs)["y"]).tolist() == [False, True]


@settings(max_examples=25)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["Add", "Sub", "Mul"]), st.floats(-8, 8, width=16)), min_size=1, max_size=5
    ),
    values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=6),
)
def test_emulated_arithmetic_is_numpys_float16(steps: list[tuple[str, float]], values: list[float]) -> None:
    """+, − and × of float16, computed in float32 and rounded once, are rounded correctly: bit for bit numpy's."""
    nodes, constants, name = [], [], "x"
    for index, (op, constant) in enumerate(steps):
        constants.append(onnx.numpy_helper.from_array(np.float32([constant]), f"k{index}"))
        nodes.append(helper.make_node(op, [name, f"k{index}"], [f"v{index}"], name=f"n{index}"))
        name = f"v{index}"
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [len(values)])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [len(values)])], constants,
    )  # fmt: skip
    model = prepare(
        ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)), "float16"
    )
    if model.kept:  # a constant too small for float16: another rule, tested above
        return
    with np.errstate(over="ignore", invalid="ignore"):
        expected = np.float32(values).astype(np.float16)
        for op, constant in steps:
            k = np.float16(constant)
            expected = {"Add": expected + k, "Sub": expected - k, "Mul": expected * k}[op]
    found = emulated(model.model).run({"x": np.float32(values)})[name]
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_the_pass_says_whether_it_did_anything(graph_maker: Any) -> None:
    g = graph_maker()
    g.add("Exp", ["x"], "y")
    assert not CastFloats()(g.model({"x": [4]}, {"y": [4]})).modified
