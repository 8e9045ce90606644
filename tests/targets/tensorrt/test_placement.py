"""Where Q and DQ stand in graphs for TensorRT, by its guide to explicit quantization, and what TensorRT for RTX makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
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

# All that may read an activation from DequantizeLinear: what multiplies or adds integers, and what moves them.
_READS_INTEGERS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "MaxPool", "Concat", "Reshape", "Transpose", "Flatten", "QuantizeLinear"}  # fmt: skip


def int8(model: ir.Model) -> ir.Model:
    data = random_data([tensor_spec(value) for value in model.graph.inputs], 8, seed=0)
    spec = TARGET.quantization("int8", find_device("rtx-4070", "tensorrt"))
    return quantize(model, spec, data, allow_random=True).model


def node_of(model: ir.Model, name: str) -> ir.Node:
    return next(node for node in model.graph if node.name == name)


def makers(node: ir.Node) -> list[str]:
    """The operators that make a node's first two inputs."""
    return [
        producer.op_type if (producer := value.producer()) else "" for value in node.inputs[:2] if value is not None
    ]


def scale_of(node: ir.Node, index: int) -> ir.Value | None:
    producer = node.inputs[index].producer() if node.inputs[index] is not None else None
    return producer.inputs[1] if producer is not None and producer.op_type == "DequantizeLinear" else None


def dequantized_readers(model: ir.Model) -> Iterator[ir.Node]:
    """Readers of activations that were integers."""
    for node in model.graph:
        if node.op_type == "DequantizeLinear" and node.inputs[0] is not None and node.inputs[0].const_value is None:
            yield from (use.node for use in node.outputs[0].uses())


@pytest.fixture
def residual_net(graph_maker: Any) -> ir.Model:
    """A stem with MaxPool, two residual blocks (one with a convolution beside), two branches into a Concat, a head."""
    g = graph_maker()

    def conv(x: str, name: str, out: int, wide: int, size: int = 3) -> str:
        weights = [g.weights(f"{name}_w", out, wide, size, size), g.weights(f"{name}_b", out)]
        return str(g.add("Conv", [x, *weights], name, pads=[size // 2] * 4))

    x = g.add("Relu", [conv("x", "stem", 32, 16)], "stem_relu")
    x = skip = g.add("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2])
    x = g.add("Relu", [conv(x, "a1", 32, 32)], "a1_relu")
    x = skip = g.add("Relu", [g.add("Add", [conv(x, "a2", 32, 32), skip], "a_sum")], "a_relu")
    x = g.add("Relu", [conv(x, "b1", 64, 32)], "b1_relu")
    x = g.add("Add", [conv(x, "b2", 64, 64), conv(skip, "b_beside", 64, 32, 1)], "b_sum")
    x = g.add("Relu", [x], "b_relu")
    left = g.add("Relu", [conv(x, "left", 32, 64, 1)], "left_relu")
    right = g.add("Relu", [conv(x, "right", 32, 64)], "right_relu")
    x = g.add("Relu", [conv(g.add("Concat", [left, right], "joined", axis=1), "last", 32, 64)], "last_relu")
    x = g.add("Add", [conv(x, "c", 32, 32), x], "c_sum")
    x = g.add("Flatten", [g.add("GlobalAveragePool", [x], "mean")], "flat")
    g.add("Gemm", [x, g.weights("w", 16, 32)], "y", transB=1)
    return g.model({"x": [1, 16, 16, 16]}, {"y": [1, 16]})


def test_the_other_branch_of_a_residual_addition_is_rounded(residual_net: ir.Model) -> None:
    model = int8(residual_net)
    assert makers(node_of(model, "a_sum_node")) == ["Conv", "DequantizeLinear"], (
        "the skip, not the convolution's output"
    )
    assert makers(node_of(model, "b_sum_node")) == ["Conv", "DequantizeLinear"], (
        "of two convolutions the second's output"
    )
    assert makers(node_of(model, "c_sum_node")) == ["Conv", "Relu"], "nobody reads that sum as integers"
    assert scale_of(node_of(model, "a_sum_node"), 1) is scale_of(node_of(model, "a1_node"), 0), (
        "one rounding for both readers"
    )


def test_rounding_goes_before_pools_and_concatenations(residual_net: ir.Model) -> None:
    model = int8(residual_net)
    pool, joined = node_of(model, "pool_node"), node_of(model, "joined_node")
    assert makers(pool) == ["DequantizeLinear"] and makers(joined) == ["DequantizeLinear", "DequantizeLinear"]
    after = joined.outputs[0].uses()[0].node
    assert after.op_type == "QuantizeLinear" and after.inputs[1] is scale_of(joined, 0) is scale_of(joined, 1)
    assert pool.outputs[0].uses()[0].node.inputs[1] is scale_of(pool, 0), (
        "the same scale before and behind: nothing is rounded twice"
    )


@pytest.mark.parametrize("name", ["transformer_block", "conv_net"])
def test_nothing_is_rounded_before_normalizations_and_activations(name: str, small_graph: Any) -> None:
    model = int8(small_graph(name))
    readers = list(dequantized_readers(model))
    assert readers and {node.op_type for node in readers} <= _READS_INTEGERS
    for node in model.graph:
        if node.op_type in ("LayerNormalization", "Erf", "Softmax", "Relu"):
            assert "DequantizeLinear" not in makers(node)
    if name == "transformer_block":
        added = [node for node in model.graph if node.op_type == "Add"]
        assert added and not any("DequantizeLinear" in makers(node) for node in added), (
            "the residual stream stays float"
        )


def test_a_border_of_minus_infinity_is_not_rounded(graph_maker: Any) -> None:
    """As exporters write a pool that pads unevenly: the border has no place on a grid."""
    g = graph_maker()
    g.add("Conv", ["x", g.weights("w1", 8, 4, 3, 3)], "first")
    border = g.constant("border", np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int64))
    g.add("Pad", ["first", border, g.constant("least", np.float32(-np.inf))], "padded")
    g.add("MaxPool", ["padded"], "pool", kernel_shape=[3, 3], strides=[2, 2])
    g.add("Conv", ["pool", g.weights("w2", 8, 8, 1, 1)], "y")
    model = int8(g.model({"x": [1, 4, 10, 10]}, {"y": [1, 8, 4, 4]}))
    assert makers(node_of(model, "pool_node")) == ["Pad"] and makers(node_of(model, "y_node"))[0] == "DequantizeLinear"


def test_numbers_stay_near_the_float_networks(residual_net: ir.Model) -> None:
    x = {"x": np.random.default_rng(3).standard_normal((1, 16, 16, 16)).astype(np.float32)}
    parity = compare_outputs([OnnxRunner(residual_net).run(x)], [OnnxRunner(int8(residual_net)).run(x)])[0]
    assert parity.sqnr_db is not None and parity.sqnr_db > 20


def test_what_tensorrt_makes_of_it(residual_net: ir.Model, make_bundle: Any) -> None:
    """By the builder's own listing. The convolution's product leaves in float32, before whatever comes after it."""
    bundle, result = make_bundle(TARGET, int8(residual_net))
    assert result.proof["products"] == {"int8": 11}
    layers = json.loads((bundle.path / "layers.json").read_text())

    def kernels(node: str) -> list[tuple[set[str], list[str]]]:
        held = [layer for layer in layers if node in layer["nodes"]]
        return [(set(layer["reads"]), layer["writes"]) for layer in held]

    assert kernels("a_sum_node") == [({"float32", "int8"}, ["int8"])], "reads the skip as integers, writes integers"
    assert kernels("stem_relu_node") == [({"float32"}, ["int8"])], "the skip is written once"
    assert kernels("pool_node") == [({"int8"}, ["int8"])] and kernels("joined_node")[0][1] == ["int8"]
