"""The null target: a description that can be read again."""

from __future__ import annotations

import json
from typing import Any

import onnx_ir as ir
from onnx import TensorProto, helper

from edgewise.targets import Executor, find_device
from edgewise.targets.null import TARGET, describe

DEVICE = find_device(TARGET.default_device, "null")


def test_the_description_holds_the_graph(small_graph: Any, make_bundle: Any) -> None:
    model = small_graph("dynamic_batch")
    bundle, result = make_bundle(TARGET, model)
    found = json.loads((bundle.path / "graph.json").read_text())
    assert found == describe(model)
    assert found["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["N", 3, 16, 16]}]
    assert found["operators"]["Conv"] == 3 and found["opsets"] == {"": 18}
    assert [node["name"] for node in found["nodes"]] == [node.name for node in model.graph]
    weights = {entry["name"]: entry for entry in found["initializers"]}
    assert weights["w1"] == {"name": "w1", "dtype": "float32", "shape": [16, 3, 3, 3], "bytes": 16 * 27 * 4}
    assert result.layers[0] == {"name": "conv1_node", "op": "Conv", "precision": "float32", "unit": "none"}


def test_there_is_never_an_executor(small_graph: Any, make_bundle: Any) -> None:
    bundle, _ = make_bundle(TARGET, small_graph("conv_net"))
    assert not isinstance(TARGET.executor(bundle), Executor)


def test_model_local_functions_are_known_and_unknown_domains_are_not(graph_maker: Any) -> None:
    g = graph_maker()
    g.add("Twice", ["x"], "a", domain="mine")
    g.add("Once", ["a"], "y", domain="mine")
    proto = ir.to_proto(g.model({"x": [4]}, {"y": [4]}, mine=1))
    proto.graph.node[1].domain = "nobody"
    body = helper.make_node("Add", ["v", "v"], ["w"])
    proto.functions.append(helper.make_function("mine", "Twice", ["v"], ["w"], [body], [helper.make_opsetid("", 18)]))
    support = TARGET.support(ir.from_proto(proto), DEVICE)
    assert [entry.taken for entry in support] == [True, False]
    assert "imports no opset of the domain 'nobody'" in support[1].reason


def test_an_operator_newer_than_the_opset_is_refused(graph_maker: Any) -> None:
    g = graph_maker()
    g.add("Gelu", ["x"], "y")
    for opset, taken in ((20, True), (18, False)):
        support = TARGET.support(g.model({"x": [4]}, {"y": [4]}, opset=opset), DEVICE)
        assert [entry.taken for entry in support] == [taken]


def test_a_node_is_refused_for_what_is_inside_it(graph_maker: Any) -> None:
    branches = {}
    for name, op, domain in (("then", "Mystery", "somebody"), ("else", "Relu", "")):
        node = helper.make_node(op, ["x"], [f"{name}_out"], name=f"{name}_op", domain=domain)
        out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [4])
        branches[f"{name}_branch"] = helper.make_graph([node], name, [], [out])
    g = graph_maker()
    g.add("ReduceMax", ["x"], "most", keepdims=0)
    g.add("Cast", ["most"], "flag", to=int(TensorProto.BOOL))
    g.add("If", ["flag"], "y", **branches)
    support = TARGET.support(g.model({"x": [4]}, {"y": [4]}, somebody=1), DEVICE)
    assert [entry.node for entry in support if not entry.taken] == ["y_node"]
    assert "somebody::Mystery inside it" in support[-1].reason
