"""Rounding with second-order information, and learned rounding: never worse than what it starts from, near the best there is, zeros kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_ir.passes import PassResult

from edgewise.quantize import QuantSpec, quantize
from edgewise.quantize.adaround import LayerProblem, learn_rounding
from edgewise.quantize.schemes import with_scheme
from edgewise.quantize.second_order import error_of, round_together
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_file import to_bytes
from edgewise.runtime.onnx_runner import OnnxRunner

Make = Callable[..., Any]

CONV = """(float[1,4,8,8] x, float[8,4,3,3] w, float[8] b, float[6,8,3,3] v, float[6] c) => (float[1,6,4,4] y)
    { a = Conv(x, w, b)  r = Relu(a)  y = Conv(r, v, c) }"""
GROUPED = """(float[1,4,8,8] x, float[8,4,1,1] w, float[8,1,3,3] d, float[6,4,1,1] v) => (float[1,6,6,6] y)
    { a = Conv(x, w)  r = Relu(a)  e = Conv<group=8>(r, d)  s = Relu(e)  y = Conv<group=2>(s, v) }"""
LINEAR = """(float[1,16,32] x, float[32,32] w, float[32] b, float[32,8] v) => (float[1,16,8] y)
    { a = MatMul(x, w)  c = Add(a, b)  r = Relu(c)  y = MatMul(r, v) }"""
GEMM = """(float[16,32] x, float[24,32] w, float[24] b) => (float[16,24] y) { y = Gemm<transB=1>(x, w, b) }"""
SHAPES = {CONV: (1, 4, 8, 8), GROUPED: (1, 4, 8, 8), LINEAR: (1, 16, 32), GEMM: (16, 32)}


def build(graph: Make, text: str) -> ir.Model:
    rng = np.random.default_rng(5)
    found = {}
    for entry in text[text.index("(") + 1 : text.index(")")].split(", "):
        kind, name = entry.split()
        found[name] = rng.normal(size=[int(dim) for dim in kind[6:-1].split(",")]).astype(np.float32)
    del found["x"]
    return graph(text, found)


def alike(dataset: Make, text: str, count: int, seed: int) -> Any:
    """Inputs that are alike, as neighbours in an image are: what one weight loses another can make good."""
    mixing = np.random.default_rng(7).normal(size=(SHAPES[text][-1], 4))
    rng = np.random.default_rng(seed)
    shape = (*SHAPES[text][:-1], 4)
    return dataset(
        [
            {"x": (rng.normal(size=shape) @ mixing.T + 0.1 * rng.normal(size=SHAPES[text]) + 1).astype(np.float32)}
            for _ in range(count)
        ]
    )


def sqnr_db(model: ir.Model, made: ir.Model, data: Any) -> float:
    want, have = ([OnnxRunner(m, optimize=False).run(sample.inputs) for sample in data] for m in (model, made))
    return min(parity.sqnr_db for parity in compare_outputs(want, have))


@pytest.mark.parametrize("text", [CONV, GROUPED, LINEAR, GEMM])
@pytest.mark.parametrize("scheme", ["w4a8", "w3"])
def test_fewer_bits_lose_less(text: str, scheme: str, graph: Make, dataset: Make) -> None:
    model = build(graph, text)
    spec = with_scheme(QuantSpec(), scheme)
    data, unseen = alike(dataset, text, 32, 1), alike(dataset, text, 16, 2)
    plain, made = (quantize(model, spec, data, rounding=how) for how in ("squant", "gptq"))
    assert made.report["rounded"] and not plain.report["rounded"]
    assert all(entry["error"] < 1 for entry in made.report["rounded"])
    assert sqnr_db(model, made.model, unseen) > sqnr_db(model, plain.model, unseen) + (0.2 if text == GROUPED else 1)


@pytest.mark.parametrize("text", [LINEAR, GEMM])
def test_linear_layers_of_8_bits_are_solved_by_default(text: str, graph: Make, dataset: Make) -> None:
    model = build(graph, text)
    data, unseen = alike(dataset, text, 32, 1), alike(dataset, text, 16, 2)
    spec = QuantSpec(activation_dtype="uint16", quantize_bias=False)  # what is left is the weights' own error
    plain, made = (quantize(model, spec, data, rounding=how) for how in ("squant", "auto"))
    assert made.report["rounded"] and not plain.report["rounded"]
    assert sqnr_db(model, made.model, unseen) > sqnr_db(model, plain.model, unseen) + 2


def test_convolutions_of_8_bits_are_rounded_without_data_by_default(graph: Make, dataset: Make) -> None:
    made = [
        quantize(build(graph, CONV), QuantSpec(), alike(dataset, CONV, 32, 1), rounding=r) for r in ("squant", "auto")
    ]
    assert to_bytes(made[0].model, "plain") == to_bytes(made[1].model, "auto")


def test_learning_moves_weights_by_one_step_where_held_out_samples_gain(
    graph: Make, dataset: Make, monkeypatch: Any
) -> None:
    # From plain rounding, so that something is left to learn; a random network's closed form leaves nothing.
    monkeypatch.setattr(
        "edgewise.quantize.passes.round_by_gptq.RoundByGptq.call", lambda self, model: PassResult(model, False)
    )
    model, data, unseen = build(graph, LINEAR), alike(dataset, LINEAR, 32, 1), alike(dataset, LINEAR, 16, 2)
    spec = with_scheme(QuantSpec(), "w3")
    plain, made, again = (quantize(model, spec, data, rounding=how) for how in ("gptq", "adaround", "adaround"))
    assert made.report["learned"] and not plain.report["learned"]
    assert all(entry["error"] < 1 for entry in made.report["learned"])
    assert sqnr_db(model, made.model, unseen) > sqnr_db(model, plain.model, unseen) + 1
    assert to_bytes(again.model, "m") == to_bytes(made.model, "m")
    for name, value in plain.model.graph.initializers.items():
        if name.endswith("_int8"):
            other = made.model.graph.initializers[name].const_value.numpy()
            assert np.abs(other - value.const_value.numpy()).max() <= 1


def test_learning_spends_nothing_on_what_the_activation_cuts_off() -> None:
    """Outputs far below zero: any rounding is as good, so nothing is better than what it starts from."""
    rng = np.random.default_rng(0)
    rows = np.abs(rng.normal(size=(1, 256, 2)) @ rng.normal(size=(2, 8)) + 0.2).astype(np.float32)
    dense = rng.normal(size=(1, 4, 8)).astype(np.float32)
    steps, bias = np.full_like(dense, 0.4), np.array([[[0, 0, -1000, 0]]], np.float32)
    limits = (0.0, np.inf)
    wanted = np.clip(rows @ dense.transpose(0, 2, 1) + bias, *limits)
    problem = LayerProblem(rows, wanted, bias, limits)
    start = np.rint(dense / steps)
    found = learn_rounding(problem, dense, start, steps, 7)
    assert problem.error(found * steps) < 0.9 * problem.error(start * steps)
    assert np.abs(found - dense / steps).max() <= 1 and np.array_equal(found, np.rint(found))
    chosen = np.arange(256)
    numeric = np.zeros_like(dense)
    for index in np.ndindex(*dense.shape):
        moved = dense.astype(np.float64) * 0.9
        up, down = moved.copy(), moved.copy()
        up[index] += 1e-3
        down[index] -= 1e-3
        numeric[index] = (problem.error(up) - problem.error(down)) / 2e-3
    np.testing.assert_allclose(problem.slope(dense * np.float32(0.9), chosen), numeric, rtol=0.05, atol=1e-4)
    assert not np.any(numeric[0, 2])


def test_scales_of_groups_move_by_one_factor_per_output(graph: Make, dataset: Make) -> None:
    model, data = build(graph, LINEAR), alike(dataset, LINEAR, 16, 1)
    spec = with_scheme(QuantSpec(), "w4g16", stores_int4=True)
    plain, made = (quantize(model, spec, data, rounding=how, correct_biases=False).model for how in ("squant", "gptq"))
    for name, value in plain.graph.initializers.items():
        other = made.graph.initializers[name].const_value.numpy()
        if name.endswith("_int4"):
            assert np.any(other != value.const_value.numpy())
        elif name.endswith("_scale"):
            ratios = other / value.const_value.numpy()
            np.testing.assert_allclose(ratios, np.broadcast_to(ratios[:1], ratios.shape), rtol=1e-6)
            assert len(np.unique(np.round(ratios, 4))) > 1
    unseen = alike(dataset, LINEAR, 16, 2)
    assert sqnr_db(model, made, unseen) > sqnr_db(model, plain, unseen) + 2


def test_zeros_stay_zeros(graph: Make, dataset: Make) -> None:
    model = build(graph, LINEAR)
    weights = model.graph.initializers["w"]
    kept = np.random.default_rng(0).random((32, 32)) < 0.5
    weights.const_value = ir.tensor(weights.const_value.numpy() * kept, name="w")
    made = quantize(model, with_scheme(QuantSpec(), "w4a8"), alike(dataset, LINEAR, 32, 1), rounding="gptq").model
    stored = next(v for n, v in made.graph.initializers.items() if n.startswith("w") and n.endswith("_int8"))
    assert np.any(stored.const_value.numpy()) and not np.any(stored.const_value.numpy()[~kept])


def test_weights_that_two_layers_share_are_left_alone(graph: Make, dataset: Make) -> None:
    text = "(float[16,32] x, float[32,32] w) => (float[16,32] y) { a = MatMul(x, w)  y = MatMul(a, w) }"
    model = graph(text, {"w": np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)})
    made = quantize(model, with_scheme(QuantSpec(), "w4"), alike(dataset, GEMM, 8, 1), rounding="gptq")
    assert made.report["rounded"] == []
    assert made.report["notes"] == [
        f"MatMul 'MatMul_{index}': its weights are rounded without data: other layers share its weights"
        for index in (0, 1)
    ]


def test_too_few_samples_round_nothing(graph: Make, dataset: Make) -> None:
    text = "(float[1,32] x, float[32,8] w) => (float[1,8] y) { y = MatMul(x, w) }"
    model = graph(text, {"w": np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)})
    few = dataset([{"x": np.ones((1, 32), np.float32)}] * 3)
    report = quantize(model, with_scheme(QuantSpec(), "w4"), few, rounding="gptq").report
    assert report["rounded"] == []
    (note,) = report["notes"]
    assert note.startswith("MatMul 'MatMul_0': its weights are rounded without data: ") and "few" in note


@settings(max_examples=25)
@given(st.integers(1, 4), st.integers(0, 999))
def test_close_to_the_best_of_all_integers(columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(columns + 2, columns))
    hessian = root.T @ root + 0.01 * np.eye(columns)
    weights = rng.normal(size=(3, columns)) * 1.5
    steps, target = np.ones_like(weights), weights @ hessian
    found = round_together(hessian, target, steps, 2, np.zeros_like(weights, dtype=bool))
    assert np.array_equal(found, np.rint(found)) and np.abs(found).max() <= 2
    best = 0.0
    for row, goal in zip(weights, target, strict=True):
        every = (np.array(choice, float)[None] for choice in itertools.product(range(-2, 3), repeat=columns))
        best += min(error_of(hessian, goal[None], choice) for choice in every) + float(row @ hessian @ row)
    mine = error_of(hessian, target, found) + float(np.sum((weights @ hessian) * weights))
    nearest = np.clip(np.rint(weights), -2, 2)
    plain = error_of(hessian, target, nearest) + float(np.sum((weights @ hessian) * weights))
    assert best - 1e-9 <= mine <= max(plain, 4 * best) + 1e-9


def test_a_group_that_reads_zeros_only_stays_as_it_was(graph: Make, dataset: Make) -> None:
    """Depthwise: each channel is a group of its own, and the second one is dead."""
    text = "(float[1,3,8,8] x, float[3,1,3,3] w) => (float[1,3,6,6] y) { y = Conv<group=3>(x, w) }"
    rng = np.random.default_rng(0)
    model = graph(text, {"w": rng.normal(size=(3, 1, 3, 3)).astype(np.float32)})
    samples = [{"x": rng.normal(size=(1, 3, 8, 8)).cumsum(axis=-1).astype(np.float32)} for _ in range(16)]
    for sample in samples:
        sample["x"][:, 1] = 0
    spec = with_scheme(QuantSpec(), "w3a8")
    made = [quantize(model, spec, dataset(samples), rounding=how) for how in ("squant", "gptq")]
    plain, solved = (m.model.graph.initializers["w_int8"].const_value.numpy() for m in made)
    assert made[1].report["rounded"] and np.any(solved != plain)
    np.testing.assert_array_equal(solved[1], plain[1])


def test_scales_per_tensor_are_rounded_too(graph: Make, dataset: Make) -> None:
    model, data = build(graph, LINEAR), alike(dataset, LINEAR, 32, 1)
    plain, made = (quantize(model, QuantSpec(per_channel=False), data, rounding=how) for how in ("squant", "gptq"))
    assert made.report["rounded"] and not plain.report["rounded"]
    unseen = alike(dataset, LINEAR, 16, 2)
    assert sqnr_db(model, made.model, unseen) > sqnr_db(model, plain.model, unseen)
