"""Bias correction: the mean shift goes, the error falls where it is corrected, and what cannot be corrected is left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.quantize import QuantSpec, quantize
from edgewise.quantize.walking import Walk, kept_samples
from edgewise.runtime.onnx_runner import OnnxRunner

Make = Callable[..., Any]

CONV = """(float[1,4,8,8] x, float[6,4,3,3] w, float[6] b, float[3,6,3,3] v, float[3] c) => (float[1,3,4,4] y)
    { a = Conv(x, w, b)  r = Relu(a)  y = Conv(r, v, c) }"""
LINEAR = """(float[1,9,8] x, float[8,8] w, float[8] b, float[8,4] v) => (float[1,9,4] y)
    { a = MatMul(x, w)  c = Add(a, b)  r = Relu(c)  y = MatMul(r, v) }"""
GEMM = """(float[4,8] x, float[8,8] w, float[8] b) => (float[4,8] y) { y = Gemm(x, w, b) }"""
SHAPES = {CONV: (1, 4, 8, 8), LINEAR: (1, 9, 8), GEMM: (4, 8)}
BIASED = {CONV: 2, LINEAR: 1, GEMM: 1}


def build(graph: Make, text: str) -> ir.Model:
    rng = np.random.default_rng(3)
    found = {}
    for entry in text[text.index("(") + 1 : text.index(")")].split(", "):
        kind, name = entry.split()
        shape = [int(dim) for dim in kind.removeprefix("float").strip("[]").split(",")]
        found[name] = np.asarray(rng.normal(size=shape), np.float32)
    del found["x"]
    return graph(text, found)


def positive(dataset: Make, text: str, count: int, seed: int = 0) -> Any:
    """Inputs whose mean is not zero: rounding weights then shifts the outputs."""
    rng = np.random.default_rng(seed)
    return dataset([{"x": np.abs(rng.normal(size=SHAPES[text])).astype(np.float32) + 1} for _ in range(count)])


def shift(model: ir.Model, made: ir.Model, data: Any) -> tuple[float, float]:
    """The mean error per output channel, and the mean squared error."""
    want, have = (np.stack([next(iter(OnnxRunner(m).run(s.inputs).values())) for s in data]) for m in (model, made))
    error = have - want
    axis = 2 if error.ndim == 5 else error.ndim - 1
    return float(np.abs(np.moveaxis(error, axis, 0).reshape(error.shape[axis], -1).mean(1)).mean()), float(
        (error**2).mean()
    )


@pytest.mark.parametrize("text", [CONV, LINEAR, GEMM])
@pytest.mark.parametrize(
    "spec",
    [
        QuantSpec(weight_bits=3),
        QuantSpec(weight_bits=3, activation_dtype="int8", activation_symmetric=True, quantize_bias=False),
    ],
)
def test_the_mean_shift_goes(text: str, spec: QuantSpec, graph: Make, dataset: Make, monkeypatch: Any) -> None:
    # Rounding to the nearest shifts most; the default rounding leaves little of it to correct.
    monkeypatch.setattr("edgewise.quantize.rounding._balance", lambda steps, integers, top: integers)
    model = build(graph, text)
    data, unseen = positive(dataset, text, 32), positive(dataset, text, 32, seed=9)
    plain = quantize(model, spec, data, rounding="squant", correct_biases=False)
    made = quantize(model, spec, data, rounding="squant", correct_biases=True)
    assert plain.report["biases_corrected"] == []
    assert len(made.report["biases_corrected"]) == BIASED[text]
    (before, error_before), (after, error_after) = (shift(model, m.model, unseen) for m in (plain, made))
    if text != LINEAR:  # the last layer of LINEAR has no bias
        assert after < before / 3
    assert error_after < error_before


@pytest.mark.parametrize("text", [CONV, LINEAR, GEMM])
def test_the_mean_of_the_weights_errors_goes_without_the_quantized_network(
    text: str, graph: Make, dataset: Make, monkeypatch: Any
) -> None:
    monkeypatch.setattr("edgewise.quantize.rounding._balance", lambda steps, integers, top: integers)
    model, data, unseen = build(graph, text), positive(dataset, text, 32), positive(dataset, text, 32, seed=9)
    spec = QuantSpec(weight_bits=3, activation_dtype="float32", quantize_bias=False, quantize_outputs=())
    plain, made = (quantize(model, spec, data, rounding="squant", shift_biases=on) for on in (False, True))
    assert plain.report["biases_shifted"] == [] and len(made.report["biases_shifted"]) == BIASED[text]
    (before, error_before), (after, error_after) = (shift(model, m.model, unseen) for m in (plain, made))
    if text == GEMM:  # one layer: all of the shift is its own
        assert after < before / 10
    assert error_after < error_before and after < before


def test_one_sample_corrects_nothing(graph: Make, dataset: Make) -> None:
    made = quantize(build(graph, CONV), QuantSpec(weight_bits=3), positive(dataset, CONV, 1), correct_biases=True)
    assert made.report["biases_corrected"] == []


def test_a_bias_that_two_layers_share_is_left_alone(graph: Make, dataset: Make) -> None:
    text = """(float[1,4,8,8] x, float[4,4,3,3] w, float[4] b) => (float[1,4,4,4] y)
        { a = Conv(x, w, b)  y = Conv(a, w, b) }"""
    rng = np.random.default_rng(0)
    model = graph(text, {"w": rng.normal(size=(4, 4, 3, 3)).astype(np.float32), "b": np.ones(4, np.float32)})
    data = positive(dataset, CONV, 8)
    spec = QuantSpec(weight_bits=3, quantize_bias=False)
    assert quantize(model, spec, data, correct_biases=True).report["biases_corrected"] == []


def test_the_same_input_gives_the_same_bytes(graph: Make, dataset: Make) -> None:
    from edgewise.runtime.onnx_file import to_bytes

    made = [
        to_bytes(quantize(build(graph, CONV), QuantSpec(), positive(dataset, CONV, 8), correct_biases=True).model, "m")
        for _ in range(2)
    ]
    assert made[0] == made[1]


def test_a_walk_gives_what_a_run_gives_and_forgets(graph: Make, dataset: Make) -> None:
    model = build(graph, LINEAR)
    samples = [sample.inputs for sample in positive(dataset, LINEAR, 3)]
    walk = Walk(model, samples)
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    for name in ("a", "r", "y"):
        found = walk.values([values[name]])[0]
        for sample, array in zip(samples, found, strict=True):
            want = OnnxRunner(model, outputs=[name], optimize=False).run(sample)[name]
            np.testing.assert_array_equal(array, want)
    with pytest.raises(KeyError):
        walk.values([values["a"]])


def test_a_walk_computes_with_what_was_changed_on_the_way(graph: Make, dataset: Make) -> None:
    model = build(graph, LINEAR)
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    walk = Walk(model, [sample.inputs for sample in positive(dataset, LINEAR, 1)])
    walk.values([values["a"]])
    walk.replace(values["a"], [np.zeros((1, 9, 8), np.float32)])
    bias = next(value for value in model.graph.initializers.values() if value.name == "b")
    bias.const_value = ir.tensor(np.full(8, 2, np.float32), name="b")
    assert np.all(walk.values([values["r"]])[0][0] == 2)


def test_a_walk_goes_through_control_flow() -> None:
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 18]>
        g (float[2] x, float[2] z) => (float[2] y) <bool t = {1}> {
            a = Add(x, x)
            b = If(t) <then_branch = g1 () => (float[2] u) { u = Mul(a, z) }, else_branch = g2 () => (float[2] v) { v = Identity(a) }>
            y = Relu(b) }""")
    sample = {"x": np.array([1, 2], np.float32), "z": np.array([3, 4], np.float32)}
    walk = Walk(model, [sample])
    walk.values([model.graph[0].outputs[0]])
    np.testing.assert_array_equal(walk.values([model.graph.outputs[0]])[0][0], [6, 16])


def test_samples_are_kept_within_the_budget(graph: Make, dataset: Make) -> None:
    model, data = build(graph, CONV), positive(dataset, CONV, 40)
    assert len(kept_samples(model, data)) == 40
    assert len(kept_samples(model, data, most=16)) == 16
    widest = 2 * 6 * 6 * 6 * 4  # a and r
    assert len(kept_samples(model, data, networks=1, budget=10 * widest)) == 10
    assert len(kept_samples(model, data, budget=1)) == 2
