"""A product of two layers' outputs (GLU, SwiGLU): in integers the second takes the first along as a factor, and rounds what comes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import pytest
from onnx import helper

from edgewise.quantize import quantize
from edgewise.runtime.data import random_data
from edgewise.targets import find_device
from edgewise.targets.cpu import TARGET
from edgewise.targets.cpu.native.compile import compile_model
from edgewise.targets.cpu.native.plan import DType, Isa, Op
from edgewise.targets.nodes import tensor_spec

pytestmark = pytest.mark.usefixtures("libedgewise")
Graph = Callable[..., Any]
TOKENS, WIDTH, HIDDEN = 19, 24, 40


def layer(g: Any, x: str, name: str, inputs: int, outputs: int) -> str:
    return str(
        g.add(
            "Add",
            [
                g.add("MatMul", [x, g.weights(f"{name}_w", inputs, outputs)], f"{name}_m"),
                g.weights(f"{name}_b", outputs),
            ],
            name,
        )
    )


def silu(g: Any, x: str) -> str:
    return str(g.add("Mul", [x, g.add("Sigmoid", [x], f"{x}_s")], f"{x}_silu"))


def swiglu(g: Any) -> str:
    return str(g.add("Mul", [silu(g, layer(g, "x", "a", WIDTH, HIDDEN)), layer(g, "x", "b", WIDTH, HIDDEN)], "h"))


def halves(g: Any) -> list[str]:
    """Of one layer."""
    names = ["a", "b"]
    g.nodes.append(helper.make_node("Split", [layer(g, "x", "ab", WIDTH, 2 * HIDDEN)], names, axis=-1, num_outputs=2))
    return names


def packed_swiglu(g: Any) -> str:
    a, b = halves(g)
    return str(g.add("Mul", [silu(g, a), b], "h"))


def glu(g: Any) -> str:
    a, b = halves(g)
    return str(g.add("Mul", [a, g.add("Sigmoid", [b], "s")], "h"))


def scaled_after(g: Any) -> str:
    """A number per channel behind the product, as SmoothQuant leaves it: into the layer that has no activation."""
    return str(g.add("Mul", [swiglu(g), g.weights("scale", HIDDEN)], "hs"))


GATES = {"swiglu": swiglu, "packed": packed_swiglu, "glu": glu, "scaled": scaled_after}


def network(graph_maker: Graph, gate: Callable[[Any], str]) -> ir.Model:
    g = graph_maker(4)
    layer(g, gate(g), "y", HIDDEN, WIDTH)
    model: ir.Model = g.model({"x": [1, TOKENS, WIDTH]}, {"y": [1, TOKENS, WIDTH]})
    return model


def layers(model: ir.Model) -> list[Op]:
    """All but what moves tokens at the ends."""
    plan = compile_model(model, Isa.AVX512VNNI).plan
    return [op for op in plan.ops if op.op not in ("transpose", "quantize")]


def int8(model: ir.Model) -> ir.Model:
    data = random_data([tensor_spec(value) for value in model.graph.inputs], 8, seed=0)
    spec = TARGET.quantization("int8", find_device("x86-64-v4-vnni", "cpu"))
    return quantize(model, spec, data, allow_random=True).model


@pytest.mark.parametrize("name", ["swiglu", "packed", "scaled"])
def test_the_second_layer_multiplies(
    name: str, graph_maker: Graph, sample: Any, run_native: Any, run_onnx: Any, worst_db: Any
) -> None:
    model = int8(network(graph_maker, GATES[name]))
    first, second, last = layers(model)
    assert {op.op for op in (first, second, last)} == {"conv"}
    assert "gated" not in first.attributes and second.attributes["gated"] == 1
    assert second.inputs[4] is first.outputs[0] and last.inputs[0] is second.outputs[0]
    assert second.outputs[0].dtype is DType.U8
    inputs = sample(model)
    assert worst_db(run_onnx(model, inputs), run_native(model, inputs)) > 35


def test_the_second_half_of_a_layer_is_activated_and_then_multiplied(
    graph_maker: Graph, sample: Any, run_native: Any, run_onnx: Any, worst_db: Any
) -> None:
    model = int8(network(graph_maker, glu))
    gated = next(op for op in layers(model) if "gated" in op.attributes)
    assert gated.attributes["activation"] == "sigmoid"
    inputs = sample(model)
    assert worst_db(run_onnx(model, inputs), run_native(model, inputs)) > 35


@pytest.mark.parametrize("name", GATES)
def test_a_product_of_floats_is_computed_alone(
    name: str, graph_maker: Graph, sample: Any, run_native: Any, run_onnx: Any, worst_db: Any
) -> None:
    model = network(graph_maker, GATES[name])
    assert not any("gated" in op.attributes for op in layers(model))
    inputs = sample(model)
    assert worst_db(run_onnx(model, inputs), run_native(model, inputs)) > 110


def test_a_gate_of_a_number_per_channel_stays_a_product(
    graph_maker: Graph, sample: Any, run_native: Any, run_onnx: Any, worst_db: Any
) -> None:
    """Squeeze and excitation: the factor is broadcast."""
    g = graph_maker(5)
    x = g.add("Conv", ["x", g.weights("w", 8, 8, 3, 3)], "c", pads=[1] * 4)
    mean = g.add("GlobalAveragePool", [x], "m")
    g.add("Mul", [x, g.add("Sigmoid", [g.add("Conv", [mean, g.weights("v", 8, 8, 1, 1)], "d")], "s")], "y")
    model = int8(g.model({"x": [1, 8, 6, 5]}, {"y": [1, 8, 6, 5]}))
    assert not any("gated" in op.attributes for op in layers(model))
    inputs = sample(model)
    assert worst_db(run_onnx(model, inputs), run_native(model, inputs)) > 30


def test_an_activation_of_the_product_is_computed_after_it(
    graph_maker: Graph, sample: Any, run_native: Any, run_onnx: Any, worst_db: Any
) -> None:
    g = graph_maker(6)
    a, b = (g.add("Conv", ["x", g.weights(f"{name}_w", 12, 8, 1, 1)], name) for name in "ab")
    g.add("Relu", [g.add("Mul", [a, b], "h")], "y")
    model = int8(g.model({"x": [1, 8, 6, 5]}, {"y": [1, 12, 6, 5]}))
    assert [op.op for op in layers(model) if op.op in ("conv", "unary")] == ["conv", "conv", "unary"]
    inputs = sample(model)
    assert worst_db(run_onnx(model, inputs), run_native(model, inputs)) > 30
