"""Balancing: the function stays the same, channels get alike, int8 gets better; what cannot be balanced is left alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.quantize import QuantSpec, quantize
from edgewise.quantize.balance import ChannelStatistics, Reader, best_factors
from edgewise.quantize.grid import Grid
from edgewise.quantize.passes.balance_channels import BalanceChannels
from edgewise.quantize.passes.prepare import prepare
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.data import Dataset
from edgewise.runtime.onnx_runner import OnnxRunner

Make = Callable[..., Any]

CHAIN = """(float[1,3,10,10] x, float[8,3,3,3] w, float[8] b, float[6,8,3,3] v) => (float[1,6,2,2] y)
    { a = Conv(x, w, b)  r = Relu(a)  p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)  y = Conv(p, v) }"""
JOINED = """(float[1,3,6,6] x, float[4,3,1,1] w, float[4,3,1,1] u, float[4] b, float[5,8,3,3] v) => (float[1,5,4,4] y)
    { a = Conv(x, w)  r = Relu(a)  c = Conv(x, u, b)  s = Relu(c)  j = Concat<axis=1>(r, s)  y = Conv(j, v) }"""
DEPTHWISE = """(float[1,3,8,8] x, float[8,3,1,1] w, float[8,1,3,3] d, float[4,8,1,1] v) => (float[1,4,6,6] y)
    { a = Conv(x, w)  r = Relu(a)  e = Conv<group=8>(r, d)  s = Relu(e)  y = Conv(s, v) }"""
LINEAR = """(float[1,5,6] x, float[6,8] w, float[8] b, float[8,4] v) => (float[1,5,4] y)
    { a = MatMul(x, w)  c = Add(a, b)  r = Relu(c)  y = MatMul(r, v) }"""
NORMED = """(float[1,5,8] x, float[8] g, float[8] h, float[8,4] v) => (float[1,5,4] y)
    { n = LayerNormalization<axis=-1>(x, g, h)  y = MatMul(n, v) }"""
POST_NORM = """(float[1,5,8] x, float[8] g, float[8] h, float[8,8] v) => (float[1,5,8] y)
    { n = LayerNormalization<axis=-1>(x, g, h)  m = MatMul(n, v)  y = Add(m, n) }"""
SCALED = """(float[1,5,8] x, float s, float[8,4] v) => (float[1,5,4] y)
    { t = Tanh(x)  u = Mul(t, s)  q = Mul(u, x)  z = Mul(q, s)  y = MatMul(z, v) }"""
GATED = """(float[1,5,6] x, float[6,8] a, float[6,8] w, float[8] b, float[8,4] v) => (float[1,5,4] y)
    { g = MatMul(x, a)  s = Sigmoid(g)  m = MatMul(x, w)  c = Add(m, b)  h = Mul(s, c)  y = MatMul(h, v) }"""
SHAPES = {CHAIN: (1, 3, 10, 10), JOINED: (1, 3, 6, 6), DEPTHWISE: (1, 3, 8, 8), LINEAR: (1, 5, 6), GATED: (1, 5, 6)}
WIDE = np.array([100, 1, 0.5, 2, 1, 0.1, 30, 1], np.float32)


def constants(text: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Random ones for every ``float[…] name`` but x, those that make channels spread over three orders of magnitude."""
    rng = np.random.default_rng(seed)
    found = {}
    for entry in text[text.index("(") + 1 : text.index(")")].split(", "):
        kind, name = entry.split()
        dims = [int(dim) for dim in kind.removeprefix("float").strip("[]").split(",") if dim]
        if name != "x":
            found[name] = np.asarray(rng.normal(size=dims), np.float32)
    for name in set(found) & {"w", "b", "u", "g", "h"}:
        axis = 1 if text in (LINEAR, GATED) and name == "w" else 0
        wide = WIDE[: found[name].shape[axis]]
        found[name] *= wide.reshape([-1 if i == axis else 1 for i in range(found[name].ndim)])
    return found


def build(graph: Make, text: str, seed: int = 0) -> ir.Model:
    return graph(text, constants(text, seed))


def data_for(normal: Make, text: str, count: int = 8, seed: int = 1) -> Dataset:
    return normal(count, SHAPES.get(text, (1, 5, 8)), seed, WIDE if text == SCALED else 1.0)


def balance(model: ir.Model, data: Dataset, spec: QuantSpec | None = None) -> tuple[ir.Model, list[Any]]:
    step = BalanceChannels(spec or QuantSpec(), data)
    return step(prepare(model)).model, step.balanced


def sqnr_db(model: ir.Model, made: ir.Model, data: Dataset) -> float:
    want, have = ([OnnxRunner(m).run(sample.inputs) for sample in data] for m in (model, made))
    return min(parity.sqnr_db for parity in compare_outputs(want, have))


def ops(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


@pytest.mark.parametrize("text", [CHAIN, JOINED, DEPTHWISE, LINEAR, NORMED, SCALED, GATED])
def test_factors_go_into_what_makes_the_tensor(text: str, graph: Make, normal: Make) -> None:
    model = build(graph, text)
    made, balanced = balance(model, data_for(normal, text))
    assert ops(made) == ops(model)
    assert balanced and {entry["how"] for entry in balanced} == {"in what makes it"}
    assert sqnr_db(model, made, data_for(normal, text, seed=2)) > 100


def test_where_others_read_the_tensor_linear_layers_get_a_mul(graph: Make, normal: Make) -> None:
    model = build(graph, POST_NORM)
    made, balanced = balance(model, data_for(normal, POST_NORM))
    assert ops(made) == ops(model) + Counter(Mul=1)
    assert [entry["how"] for entry in balanced] == ["by a Mul"]
    assert sqnr_db(model, made, data_for(normal, POST_NORM, seed=2)) > 100
    add = next(node for node in made.graph if node.op_type == "Add")
    assert add.inputs[1].producer().op_type == "LayerNormalization"


@pytest.mark.parametrize("text", [CHAIN, JOINED, DEPTHWISE, LINEAR, NORMED, POST_NORM, SCALED, GATED])
@pytest.mark.parametrize("symmetric", [False, True])
def test_int8_gains(text: str, symmetric: bool, graph: Make, normal: Make) -> None:
    model = build(graph, text)
    data, unseen = data_for(normal, text, 16), data_for(normal, text, 8, seed=2)
    spec = QuantSpec(activation_dtype="int8" if symmetric else "uint8", activation_symmetric=symmetric)
    plain = sqnr_db(model, quantize(model, replace(spec, balance=False), data, method="minmax").model, unseen)
    made = quantize(model, spec, data, method="minmax")
    assert made.report["balanced"]
    assert sqnr_db(model, made.model, unseen) > plain + 0.5


@settings(max_examples=20)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 1000))
def test_convolutions_of_any_width_compute_the_same(
    graph: Make, normal: Make, width: int, made: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    text = f"""(float[1,2,6,6] x, float[{width},2,3,3] w, float[{width}] b, float[{made},{width},1,1] v) =>
        (float[1,{made},4,4] y) {{ a = Conv(x, w, b)  r = Relu(a)  y = Conv(r, v) }}"""
    wide = (10.0 ** rng.uniform(-3, 3, size=width)).astype(np.float32)
    shapes = {"w": (width, 2, 3, 3), "b": (width,), "v": (made, width, 1, 1)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["w"] *= wide[:, None, None, None]
    model = graph(text, arrays)
    balanced, _ = balance(model, normal(4, (1, 2, 6, 6), seed))
    assert sqnr_db(model, balanced, normal(4, (1, 2, 6, 6), seed + 1)) > 90


def test_alike_channels_are_left_alone(graph: Make, normal: Make) -> None:
    text = "(float[1,5,8] x, float[8,4] v) => (float[1,5,4] y) { t = Tanh(x)  y = MatMul(t, v) }"
    model = build(graph, text)
    made, balanced = balance(model, normal(8, (1, 5, 8)))
    assert not balanced and ops(made) == ops(model)


@pytest.mark.parametrize(
    "spec", [QuantSpec(balance=False), QuantSpec(per_channel=False), QuantSpec(op_types=("Gemm",))]
)
def test_not_without_scales_per_channel_nor_for_layers_in_float(spec: QuantSpec, graph: Make, normal: Make) -> None:
    assert balance(build(graph, CHAIN), data_for(normal, CHAIN), spec)[1] == []


SHARED = """(float[1,3,6,6] x, float[8,3,1,1] w, float[8,8,1,1] v) => (float[1,8,6,6] y)
    { a = Conv(x, w)  r = Relu(a)  c = Conv(r, v)  s = Relu(c)  y = Conv(s, v) }"""
GIVEN_OUT = """(float[1,3,6,6] x, float[8,3,1,1] w, float[4,8,1,1] v) => (float[1,4,6,6] y, float[1,8,6,6] r)
    { a = Conv(x, w)  r = Relu(a)  y = Conv(r, v) }"""
BOUNDED = """(float[1,3,6,6] x, float[8,3,1,1] w, float[4,8,1,1] v) => (float[1,4,6,6] y)
    { a = Conv(x, w)  r = Sigmoid(a)  y = Conv(r, v) }"""
GROUPED = """(float[1,3,6,6] x, float[8,3,1,1] w, float[4,4,1,1] v) => (float[1,4,6,6] y)
    { a = Conv(x, w)  r = Relu(a)  y = Conv<group=2>(r, v) }"""


@pytest.mark.parametrize("text", [SHARED, GIVEN_OUT, BOUNDED, GROUPED])
def test_what_cannot_be_balanced_is_left_alone(text: str, graph: Make, normal: Make) -> None:
    model = build(graph, text)
    made, balanced = balance(model, normal(4, (1, 3, 6, 6)))
    assert balanced == []
    assert sqnr_db(model, made, normal(2, (1, 3, 6, 6))) == np.inf


def test_wide_channels_are_narrowed_alone_where_that_is_best() -> None:
    rng = np.random.default_rng(3)
    rows = (rng.normal(size=(500, 16)) * np.linspace(0.05, 1, 16)).astype(np.float32)
    rows[:, 5] = 6 * rng.normal(size=500)
    weights = rng.normal(size=(32, 1, 16)).astype(np.float32)
    weights[..., 5] *= 0.1
    seen = ChannelStatistics(-1)
    seen.update(rows)
    given = (seen, [Reader(weights)], Grid("uint8", False), 8)
    factors, gain = best_factors(*given, few=True)
    assert np.all(factors[:5] == 1) and factors[5] > 10
    assert gain > best_factors(*given)[1] > 2
