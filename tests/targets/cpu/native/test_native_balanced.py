"""A number per channel behind an activation, as balanced channels leave it: the layer before takes both along."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.quantize import quantize
from edgewise.runtime.data import random_data
from edgewise.targets import find_device
from edgewise.targets.cpu import TARGET
from edgewise.targets.cpu.native.compile import compile_model
from edgewise.targets.cpu.native.plan import Isa, Op
from edgewise.targets.nodes import tensor_spec

pytestmark = pytest.mark.usefixtures("libedgewise")
Graph = Callable[..., Any]
TOKENS, WIDTH, HIDDEN = 19, 24, 40


def number(g: Any, name: str, value: float) -> str:
    return str(g.constant(name, np.float32(value)))


def factors(g: Any) -> str:
    return str(g.weights("factors", HIDDEN))


def written_out(g: Any, x: str, half: str) -> str:
    gate = g.add("Erf", [g.add("Div", [x, number(g, "root", 2**0.5)], "d")], "e")
    return str(g.add("Mul", [x, g.add("Mul", [half, g.add("Add", [gate, number(g, "one", 1)], "e1")], "eh")], "h"))


def in_the_half(g: Any, x: str) -> str:
    """As balancing has it: in the constant that GELU multiplies by."""
    return written_out(g, x, factors(g))


def behind_the_half(g: Any, x: str) -> str:
    return str(g.add("Mul", [written_out(g, x, number(g, "half", 0.5)), factors(g)], "hf"))


def behind_an_operator(g: Any, x: str) -> str:
    return str(g.add("Div", [g.add("Gelu", [x], "h"), factors(g)], "hf"))


def behind_silu(g: Any, x: str) -> str:
    return str(g.add("Mul", [factors(g), g.add("Mul", [x, g.add("Sigmoid", [x], "s")], "h")], "hf"))


def before_an_addition(g: Any, x: str) -> str:
    return str(g.add("Add", [in_the_half(g, x), "other"], "sum"))


FORMS = {
    form.__name__: form for form in (in_the_half, behind_the_half, behind_an_operator, behind_silu, before_an_addition)
}


def network(graph_maker: Graph, form: Callable[[Any, str], str], wide: float = 1.0) -> ir.Model:
    """An MLP; of its hidden channels one is ``wide`` times as wide."""
    g = graph_maker(4)
    a, b = g.weights("a", WIDTH, HIDDEN), g.weights("b", HIDDEN, WIDTH)
    x = g.add(
        "Add", [g.add("MatMul", ["x", a], "m"), g.constant("bias", np.eye(1, HIDDEN, 5, np.float32)[0] * wide)], "p"
    )
    g.add("MatMul", [form(g, x), b], "y")
    inputs = {"x": [1, TOKENS, WIDTH]} | ({"other": [1, TOKENS, HIDDEN]} if form is before_an_addition else {})
    model: ir.Model = g.model(inputs, {"y": [1, TOKENS, WIDTH]}, opset=20)
    return model


def operators(model: ir.Model) -> list[Op]:
    """All but what lays out tokens at the ends."""
    plan = compile_model(model, Isa.AVX512VNNI).plan
    return [op for op in plan.ops if op.op not in ("transpose", "quantize")]


@pytest.mark.parametrize("name", FORMS)
def test_the_layer_before_takes_it_along(
    name: str, graph_maker: Graph, sample: Any, run_native: Any, run_onnx: Any, worst_db: Any
) -> None:
    model = network(graph_maker, FORMS[name])
    assert [op.op for op in operators(model)] == ["conv", "conv"]
    inputs = sample(model)
    assert worst_db(run_onnx(model, inputs), run_native(model, inputs)) > 110


def test_channels_that_were_balanced_cost_no_operator(
    graph_maker: Graph, sample: Any, run_native: Any, run_onnx: Any, worst_db: Any
) -> None:
    plain = network(graph_maker, lambda g, x: written_out(g, x, number(g, "half", 0.5)), wide=60.0)
    data = random_data([tensor_spec(value) for value in plain.graph.inputs], 8, seed=0)
    result = quantize(plain, TARGET.quantization("int8", find_device("x86-64-v4-vnni", "cpu")), data, allow_random=True)
    halves = [value.const_value for name, value in result.model.graph.initializers.items() if name.startswith("half")]
    assert any(half is not None and half.size == HIDDEN for half in halves)  # it was balanced
    first, second = operators(result.model)
    assert first.op == second.op == "conv" and second.inputs[0] is first.outputs[0]
    inputs = sample(result.model)
    assert worst_db(run_onnx(result.model, inputs), run_native(result.model, inputs)) > 35


def test_bounds_keep_their_product(
    graph_maker: Graph, sample: Any, run_native: Any, run_onnx: Any, worst_db: Any
) -> None:
    """They are done on the bytes of the output, whose bounds a factor per channel would part."""
    model = network(graph_maker, lambda g, x: str(g.add("Mul", [g.add("Relu", [x], "r"), factors(g)], "rf")))
    assert [op.op for op in operators(model)] == ["conv", "binary", "conv"]
    inputs = sample(model)
    assert worst_db(run_onnx(model, inputs), run_native(model, inputs)) > 110
