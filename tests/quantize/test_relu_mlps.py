"""MLPs with a ReLU in place of GELU: found however GELU is written, and kept only where few bits are better spent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.quantize import QuantSpec, quantize
from edgewise.quantize.passes.prepare import prepare
from edgewise.quantize.passes.relu_mlps import ReluMlps
from edgewise.quantize.relu_mlp import Mlp, gelu, with_relu
from edgewise.quantize.schemes import with_scheme
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_file import to_bytes
from edgewise.runtime.onnx_runner import OnnxRunner

Make = Callable[..., Any]

ERF = "q = Div(p, k)  e = Erf(q)  s = Add(e, o)  m = Mul(p, s)  g = Mul(m, h)"
QUICK = "q = Mul(p, k)  e = Sigmoid(q)  g = Mul(p, e)"
SILU = "e = Sigmoid(p)  g = Mul(p, e)"
SCALARS = {ERF: {"k": np.sqrt(2), "o": 1.0, "h": 0.5}, QUICK: {"k": 1.702}, SILU: {}}
FOUR_BITS = replace(with_scheme(QuantSpec(), "w4a4"), wide_ends=False)


def build(
    graph: Make, act: str = ERF, end: str = "d = MatMul(g, v)  y = Add(d, c)", shape: str = "1,16,24"
) -> ir.Model:
    rng = np.random.default_rng(3)
    made = {
        "w": rng.normal(size=(24, 64)) / 3,
        "b": rng.normal(size=64) / 2,
        "v": rng.normal(size=(64, 24)) / 8,
        "c": rng.normal(size=24) / 8,
        **SCALARS[act],
    }
    scalars = "".join(f", float[] {name}" for name in SCALARS[act])
    text = (
        f"(float[1,16,24] x, float[24,64] w, float[64] b, float[64,24] v, float[24] c{scalars}) => (float[{shape}] y)"
        f" {{ a = MatMul(x, w)  p = Add(a, b)  {act}  {end} }}"
    )
    return prepare(graph(text, {name: np.asarray(array, np.float32) for name, array in made.items()}))


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def sqnr_db(model: ir.Model, made: ir.Model, data: Any) -> float:
    want, have = ([OnnxRunner(m, optimize=False).run(sample.inputs) for sample in data] for m in (model, made))
    return min(parity.sqnr_db for parity in compare_outputs(want, have))


@pytest.mark.parametrize("act", [ERF, QUICK])
def test_gelu_becomes_a_relu(act: str, graph: Make, normal: Make) -> None:
    model, data, unseen = build(graph, act), normal(64, (1, 16, 24)), normal(16, (1, 16, 24), seed=1)
    assert operators(model)[2:-2] == [word.partition("(")[0] for word in act.split() if "(" in word]
    relu = ReluMlps(FOUR_BITS, data)
    made = relu(model.clone()).model
    assert operators(made) == ["MatMul", "Add", "Relu", "MatMul", "Add"]
    assert [value.name for value in (*made.graph.inputs, *made.graph.outputs)] == ["x", "y"]
    assert sqnr_db(model, made, unseen) > 15
    assert [row["layer"] for row in relu.replaced] == [list(model.graph)[-2].name] and not relu.notes


def test_four_bits_are_better_spent(graph: Make, normal: Make) -> None:
    model, data, unseen = build(graph), normal(64, (1, 16, 24)), normal(16, (1, 16, 24), seed=1)
    plain, made, again = (quantize(model, FOUR_BITS, data, relu_mlps=on) for on in (False, True, True))
    assert "Relu" not in operators(plain.model) and "Erf" not in operators(made.model)
    assert made.report["relu_mlps"] and not plain.report["relu_mlps"]
    assert sqnr_db(model, made.model, unseen) > sqnr_db(model, plain.model, unseen)
    assert to_bytes(again.model, "m") == to_bytes(made.model, "m")


@pytest.mark.parametrize("spec", [QuantSpec(), replace(FOUR_BITS, wide_ends=True)])
def test_eight_bits_keep_gelu(spec: QuantSpec, graph: Make, normal: Make) -> None:
    model, data = build(graph), normal(32, (1, 16, 24))
    made = quantize(model, spec, data, relu_mlps=True)
    assert not made.report["relu_mlps"] and "Erf" in operators(made.model)
    assert [note for note in made.report["notes"] if "the GELU before 'MatMul_" in note and "dB worse" in note]


BOTH_ENDS = "d = MatMul(g, v)  u = Add(d, c)  y = Concat<axis=-1>(u, g)"
TWICE = "d = MatMul(g, v)  f = Add(d, c)  l = MatMul(x, w)  r = MatMul(l, v)  y = Add(f, r)"


@pytest.mark.parametrize(
    ("model", "options", "reason"),
    [
        ({}, {"spec": with_scheme(QuantSpec(), "w4")}, "activations stay in float"),
        ({}, {"count": 4}, "too few samples: 4"),
        ({}, {"keep_float": ["MatMul_0"]}, "'MatMul_0' stays in float"),
        ({"end": TWICE}, {}, "shares its weights"),
        ({"act": SILU}, {}, ""),
        ({"end": BOTH_ENDS, "shape": "1,16,88"}, {}, ""),
    ],
)
def test_what_is_left_alone(model: Any, options: Any, reason: str, graph: Make, normal: Make) -> None:
    """With the reason where there is a GELU between two layers; without a word where there is none that could go."""
    made = build(graph, **model)
    before = operators(made)
    relu = ReluMlps(
        options.get("spec", FOUR_BITS),
        normal(options.get("count", 16), (1, 16, 24)),
        keep_float=options.get("keep_float", []),
    )
    assert not relu(made).modified and operators(made) == before
    assert [reason in note for note in relu.notes] == ([True] if reason else [])


def test_zeros_stay_and_weighted_errors_count() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(512, 6)).astype(np.float32)
    old = Mlp(*(rng.normal(size=size).astype(np.float32) for size in ((6, 12), 12, (12, 4), 4)))
    old.second[::2] = 0
    wanted = old.outputs(gelu(old.hidden(rows)))
    weight = np.array([[1, 1, 1, 0]], np.float32)
    found = with_relu(old, rows, wanted, weight, (True, False))
    assert not found.second[::2].any() and found.second[1::2].all()
    np.testing.assert_array_equal(found.second_bias, old.second_bias)
    made, start = (np.square(each.outputs(np.maximum(each.hidden(rows), 0)) - wanted).mean(0) for each in (found, old))
    assert made[:3].sum() < start[:3].sum() / 2 and made[3] > made[:3].max()
