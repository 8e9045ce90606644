"""What TensorRT's parser refuses is told of the right nodes, in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from edgewise.targets import TargetError, find_device
from edgewise.targets.tensorrt import TARGET
from edgewise.targets.tensorrt.ahead import parse_or_refuse
from edgewise.targets.tensorrt.prepare import normalize
from edgewise.targets.tensorrt.vendor import readable

DEVICE = find_device("rtx-4070", "tensorrt")


def reasons(model: ir.Model) -> dict[str, str]:
    return {entry.node: entry.reason for entry in TARGET.support(model, DEVICE) if not entry.taken}


def test_every_refused_node_is_found_not_only_the_first(graph_maker: Any) -> None:
    g = graph_maker()
    g.add("Relu", ["x"], "a")
    g.add("Det", ["a"], "b")
    g.add("Unsqueeze", ["b", g.constant("axes", np.int64([1]))], "c")
    g.add("Relu", ["c"], "d")
    g.add("Hardmax", ["d"], "e")
    g.add("Sigmoid", ["e"], "f")
    g.add("Mean", ["f", "f"], "y")
    found = reasons(g.model({"x": [2, 3, 3]}, {"y": [2, 1]}))
    assert (
        "b_node" in found
        and found["b_node"]
        == "the parser has no form of it; the nearest rewrite: Mul and Sub written out, for small matrices"
    )
    assert {"a_node", "c_node", "d_node", "f_node"}.isdisjoint(found), "those behind a refused node are examined too"


def test_zero_points_that_are_constant_are_made_symmetric_and_computed_ones_refused(graph_maker: Any) -> None:
    def reasons_with(zero: str, *more: Any) -> dict[str, str]:
        g = graph_maker()
        g.constant("scale", np.float32(0.1)), g.constant("fixed", np.int8(3))
        g.nodes += more
        q = g.add("QuantizeLinear", ["x", "scale", zero], "q")
        g.add("DequantizeLinear", [q, "scale", zero], "y")
        return reasons(g.model({"x": [4]}, {"y": [4]}))

    assert reasons_with("fixed") == {}
    most = helper.make_node("ReduceMax", ["x"], ["most"], name="most", keepdims=0)
    computed = reasons_with(
        "point", most, helper.make_node("Cast", ["most"], ["point"], name="point", to=TensorProto.INT8)
    )
    assert "q_node" in computed


def test_what_cannot_be_examined_is_not_called_taken(small_graph: Any) -> None:
    """Nobody knows what type a custom operator makes, so nobody can say whether its reader is taken."""
    found = reasons(small_graph("with_a_mystery"))
    assert found["middle_node"] == "TensorRT has no such operator"
    assert found["y_node"].startswith("not examined")


def test_a_node_inside_a_branch_is_told_of_the_node_that_holds_it(graph_maker: Any) -> None:
    branches = {}
    for name, op, domain in (("then", "Mystery", "somebody"), ("else", "Relu", "")):
        node = helper.make_node(op, ["x"], [f"{name}_out"], name=f"{name}_op", domain=domain)
        out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [4])
        branches[f"{name}_branch"] = helper.make_graph([node], name, [], [out])
    g = graph_maker()
    g.add("ReduceMax", ["x"], "most", keepdims=0)
    g.add("Cast", ["most"], "flag", to=int(TensorProto.BOOL))
    g.add("If", ["flag"], "y", **branches)
    assert reasons(g.model({"x": [4]}, {"y": [4]}, somebody=1)) == {"y_node": "TensorRT has no such operator"}


def test_int32_biases_are_undone_before_the_parser_sees_them(graph_maker: Any) -> None:
    """Other people's QDQ graphs have them; TensorRT does not dequantize int32."""
    g = graph_maker()
    g.constant("s", np.float32(0.05)), g.constant("z", np.int8(0))
    g.add("DequantizeLinear", [g.add("QuantizeLinear", ["x", "s", "z"], "q"), "s", "z"], "d")
    g.constant("wi", np.ones((4, 3, 1, 1), np.int8)), g.constant("ws", np.full(4, 0.1, np.float32))
    g.add("DequantizeLinear", ["wi", "ws"], "w", axis=0)
    g.constant("bi", np.int32([100, -200, 300, 0])), g.constant("bs", np.float32([0.005] * 4))
    g.add("DequantizeLinear", ["bi", "bs"], "b", axis=0)
    g.add("Conv", ["d", "w", "b"], "y")
    model = g.model({"x": [1, 3, 4, 4]}, {"y": [1, 4, 4, 4]})
    assert reasons(model) == {}
    prepared, _ = normalize(model)
    conv = next(node for node in prepared.graph if node.op_type == "Conv")
    np.testing.assert_allclose(conv.inputs[2].const_value.numpy(), [0.5, -1.0, 1.5, 0.0], rtol=1e-6)  # type: ignore[union-attr]


def test_the_parsers_error_has_name_operator_and_attributes(graph_maker: Any) -> None:
    g = graph_maker()
    g.add("Relu", ["x"], "a")
    g.nodes.append(helper.make_node("MaxPool", ["a"], ["y", "where"], name="pool", kernel_shape=[2, 2]))
    model = g.model({"x": [1, 1, 4, 4]}, {"y": [1, 1, 3, 3]})
    model.graph.outputs.append(next(node for node in model.graph if node.name == "pool").outputs[1])
    with pytest.raises(TargetError) as caught:
        parse_or_refuse(ir.to_proto(model).SerializeToString(), model)
    assert "node 'pool', operator MaxPool, attributes kernel_shape=(2, 2)" in str(caught.value)
    assert "1 outputs for MaxPool" in caught.value.found


def test_opset_9_and_a_graph_without_names_are_taken(graph_maker: Any) -> None:
    g = graph_maker()
    g.add("Relu", ["x"], "a")
    g.add("Sigmoid", ["a"], "y")
    for node in g.nodes:
        node.name = "same"
    model = g.model({"x": [4]}, {"y": [4]}, opset=9)
    support = TARGET.support(model, DEVICE)
    assert [(entry.node, entry.taken) for entry in support] == [("same", True), ("Sigmoid_1", True)]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("false", "the parser has no form of it"),
        (
            'creator && "Plugin not found, are the plugin name, version, and namespace correct?"',
            "TensorRT has no such operator",
        ),
        (
            "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([pass.cpp:337: check] Cannot compile operation 'm' "
            "for Turing (SM75): FP32 GEMM is not supported. In compileGraph at /_src/optimizer/myelin/codeGenerator.cpp:2012)",
            "Cannot compile operation 'm' for Turing (SM75): FP32 GEMM is not supported",
        ),
        ("MaxPool wants the attribute kernel_shape", "MaxPool wants the attribute kernel_shape"),
    ],
)
def test_the_vendors_words_are_made_readable(said: str, told: str) -> None:
    assert readable(said) == told
