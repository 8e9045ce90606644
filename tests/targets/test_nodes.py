"""Names of nodes and tensors, as targets speak of them."""

from __future__ import annotations

import onnx_ir as ir

from edgewise.targets.nodes import node_names, op_name, tensor_spec


def names_of(*names: str | None) -> list[str]:
    x = ir.Value(name="x")
    nodes = [ir.node("Relu", [x]) for _ in names]
    graph = ir.Graph([x], [nodes[0].outputs[0]], nodes=nodes)
    for node, name in zip(nodes, names, strict=True):
        node.name = name  # afterwards, for a graph names what it is given
    return node_names(graph)


def test_every_node_gets_a_name_of_its_own() -> None:
    assert names_of("same", "", "same", None) == ["same", "Relu_1", "Relu_2", "Relu_3"]
    assert names_of("Relu_1", None) == ["Relu_1", "Relu_1_"]


def test_other_domains_are_named_and_onnxs_own_is_not() -> None:
    x = ir.Value(name="x")
    assert [op_name(ir.node("Relu", [x], domain=domain)) for domain in ("", "ai.onnx", "mine")] == [
        "Relu",
        "Relu",
        "mine::Relu",
    ]


def test_a_tensor_without_type_or_dims_is_described_as_such() -> None:
    assert tensor_spec(ir.Value(name="x")).dtype == "unknown"
    value = ir.Value(name="x", shape=ir.Shape(["N", None, 3]), type=ir.TensorType(ir.DataType.FLOAT16))
    assert (tensor_spec(value).dtype, tensor_spec(value).shape) == ("float16", ("N", "?", 3))
