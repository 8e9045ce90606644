"""AWQ: the function stays, weights of few bits lose less, factors go where they cost nothing; what cannot gain is left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.quantize import QuantSpec, quantize
from edgewise.quantize.passes.prepare import prepare
from edgewise.quantize.passes.search_scales import SearchScales
from edgewise.quantize.schemes import with_scheme
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_runner import OnnxRunner

Make = Callable[..., Any]

NORMED = """(float[1,12,32] x, float[32] g, float[32] b, float[32,48] w, float[32,16] v) => (float[1,12,48] y, float[1,12,16] z)
    { n = LayerNormalization(x, g, b)  y = MatMul(n, w)  z = MatMul(n, v) }"""
READ_TWICE = """(float[1,12,32] x, float[32] g, float[32] b, float[32,32] w) => (float[1,12,32] y)
    { n = LayerNormalization(x, g, b)  p = MatMul(n, w)  y = Add(p, n) }"""
DEPTHWISE = (
    """(float[1,16,8,8] x, float[16,1,3,3] w) => (float[1,16,6,6] y) { r = Relu(x)  y = Conv<group=16>(r, w) }"""
)


def build(graph: Make, text: str) -> ir.Model:
    """Weights of normal numbers; every eighth channel of the scales ``g`` and biases ``b`` is twenty times as large."""
    rng = np.random.default_rng(4)
    found = {}
    for entry in text[text.index("(") + 1 : text.index(")")].split(", "):
        kind, name = entry.split()
        found[name] = rng.normal(size=[int(dim) for dim in kind[6:-1].split(",")]).astype(np.float32)
        if name in ("g", "b"):
            found[name][::8] *= 20
    del found["x"]
    return prepare(graph(text, found))


def outputs(model: ir.Model, data: Any) -> list[dict[str, np.ndarray]]:
    return [OnnxRunner(model, optimize=False).run(sample.inputs) for sample in data]


def sqnr_db(model: ir.Model, made: ir.Model, data: Any) -> float:
    return min(parity.sqnr_db for parity in compare_outputs(outputs(model, data), outputs(made, data)))


@pytest.mark.parametrize(("text", "how"), [(NORMED, "in what makes it"), (READ_TWICE, "by a Mul")])
def test_the_function_stays_and_few_bits_lose_less(text: str, how: str, graph: Make, normal: Make) -> None:
    model, shape = build(graph, text), (1, 12, 32)
    spec, data, unseen = with_scheme(QuantSpec(), "w4"), normal(16, shape), normal(4, shape, seed=9)
    search = SearchScales(spec, data)
    scaled = search(model.clone()).model
    assert [row["how"] for row in search.scaled] == [how]
    assert all(row["power"] > 0 and row["gain_db"] >= 0.5 for row in search.scaled)
    assert sqnr_db(model, scaled, unseen) > 100
    plain, made = (quantize(model, spec, data, rounding="squant", search_scales=on) for on in (False, True))
    assert plain.report["scaled"] == [] and made.report["scaled"] == search.scaled
    assert sqnr_db(model, made.model, unseen) > sqnr_db(model, plain.model, unseen) + 1


@pytest.mark.parametrize(("text", "scheme"), [(DEPTHWISE, "w4"), (NORMED, "w8"), (NORMED, "w4a8")])
def test_what_cannot_gain_is_left_alone(text: str, scheme: str, graph: Make, normal: Make) -> None:
    shape = (1, 16, 8, 8) if text == DEPTHWISE else (1, 12, 32)
    made = quantize(build(graph, text), with_scheme(QuantSpec(), scheme), normal(8, shape), search_scales=True)
    assert made.report["scaled"] == []


def test_channels_of_one_size_are_left_alone(graph: Make, normal: Make) -> None:
    """Inputs that are alike leave nothing to scale."""
    model = build(graph, NORMED)
    for name in ("g", "b"):
        value = model.graph.initializers[name]
        value.const_value = ir.tensor(np.ones(32, np.float32), name=name)
    search = SearchScales(with_scheme(QuantSpec(), "w4"), normal(16, (1, 12, 32)))
    search(model)
    assert search.scaled == []
