"""Schemes other than int8: what is stored, with how many bits, and that the numbers follow from the bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from edgewise.quantize import QuantizeError, QuantSpec, quantize
from edgewise.quantize.grid import Grid, weight_scales
from edgewise.quantize.schemes import with_scheme
from edgewise.quantize.stored import Coding
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_file import to_bytes
from edgewise.runtime.onnx_runner import OnnxRunner

Make = Callable[..., Any]

NET = """(float[2,64] x, float[64,96] w, float[96] b, float[96,64] v, float[64] c, float[64,8] u) => (float[2,8] y)
    { a = Gemm(x, w, b)  r = Relu(a)  d = Gemm(r, v, c)  s = Relu(d)  y = MatMul(s, u) }"""
SYMMETRIC = QuantSpec(activation_dtype="int8", activation_symmetric=True, quantize_bias=False)


@pytest.fixture(scope="module")
def net(graph: Make) -> ir.Model:
    rng = np.random.default_rng(0)
    shapes = {"w": (64, 96), "b": (96,), "v": (96, 64), "c": (64,), "u": (64, 8)}
    return graph(NET, {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()})


def sqnr_db(model: ir.Model, made: ir.Model, data: Any) -> float:
    # As it stands: ONNX Runtime's optimizer merges a Relu wrongly into a QuantizeLinear to int4.
    want, have = ([OnnxRunner(m, optimize=False).run(sample.inputs) for sample in data] for m in (model, made))
    return min(parity.sqnr_db for parity in compare_outputs(want, have))


def stored(model: ir.Model) -> dict[str, list[np.ndarray]]:
    """Integer initializers of more than one dim, by dtype."""
    found: dict[str, list[np.ndarray]] = {}
    for value in model.graph.initializers.values():
        if len(value.shape) == 2 and value.dtype is not None and value.name.endswith(("_int8", "_int4")):
            found.setdefault(value.dtype.name, []).append(value.const_value.numpy().astype(np.int32))
    return found


@pytest.mark.parametrize("base", [QuantSpec(), SYMMETRIC], ids=["uint8", "int8"])
@pytest.mark.parametrize(
    ("name", "int4", "least", "most"),
    [
        ("int8", False, 24, 45), ("w8a8", False, 24, 45), ("w4a8", False, 14, 25), ("w4a8", True, 14, 25),
        ("w8a16", False, 31, 55), ("w8", False, 31, 55), ("w4", True, 14, 25), ("w3", True, 8, 18),
        ("w4g32", True, 15, 28), ("w8g32", False, 36, 55), ("w4a4", True, 12, 24),
        ("w8d8", False, 28, 48), ("w8d8g32", False, 33, 50),
    ],
)  # fmt: skip
def test_numbers_follow_from_the_bits(
    net: ir.Model, normal: Make, base: QuantSpec, name: str, int4: bool, least: float, most: float
) -> None:
    made = quantize(net, with_scheme(base, name, stores_int4=int4), normal(32, (2, 64))).model
    onnx.checker.check_model(onnx.load_from_string(to_bytes(made, "m")), full_check=True)
    assert least < sqnr_db(net, made, normal(8, (2, 64), 1)) < most
    top = 2 ** (int(name[1]) - 1) - 1 if name.startswith("w") else 127
    arrays = [array for found in stored(made).values() for array in found]
    assert len(arrays) == 3
    if name != "w4a4":  # its ends have 8 bits
        assert max(np.abs(array).max() for array in arrays) <= top
        assert set(stored(made)) == {"INT4" if int4 else "INT8"}


def test_onnx_reads_it_the_same_way(net: ir.Model, normal: Make) -> None:
    """From outside: ONNX's reference computes what ONNX Runtime computes, groups and 4 bits included."""
    made = quantize(net, with_scheme(QuantSpec(), "w4g32", stores_int4=True), normal(8, (2, 64))).model
    sample = next(iter(normal(1, (2, 64), 2))).inputs
    want = ReferenceEvaluator(onnx.load_from_string(to_bytes(made, "m"))).run(None, sample)[0]
    have = next(iter(OnnxRunner(made, optimize=False).run(sample).values()))
    np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-4)


def test_weight_only_leaves_activations_alone(net: ir.Model, normal: Make) -> None:
    made = quantize(net, with_scheme(QuantSpec(), "w4g16", stores_int4=True), normal(8, (2, 64)))
    ops = [node.op_type for node in made.model.graph]
    assert ops.count("DequantizeLinear") == 3 and "QuantizeLinear" not in ops
    assert {row["precision"] for row in made.report["layers"]} == {"w4"}
    assert {row["granularity"] for row in made.report["layers"]} == {"per-group-16"}


OUTLIER = np.where(np.arange(64) == 5, 40.0, 1.0)  # of 64 inputs one is 40 times as wide


@pytest.mark.parametrize(("name", "size"), [("w8d8", 64), ("w8d8g16", 16)])
def test_ranges_found_at_run_time(net: ir.Model, normal: Make, name: str, size: int) -> None:
    """No data; each row is on a grid of its own, and a wide channel costs its own group alone."""
    made = quantize(net, with_scheme(QuantSpec(), name), None)
    onnx.checker.check_model(onnx.load_from_string(to_bytes(made.model, "m")), full_check=True)
    assert {row["precision"] for row in made.report["layers"]} == {"w8d8"}
    assert made.report["samples"] == 0
    first = next(node for node in made.model.graph if node.op_type in ("Gemm", "MatMul"))
    made.model.graph.outputs.append(first.inputs[0])
    sample = next(iter(normal(1, (2, 64), 5, OUTLIER))).inputs
    name = str(first.inputs[0].name)
    have = OnnxRunner(made.model, optimize=False).run(sample)[name].reshape(2, -1, size)
    x = sample["x"].reshape(2, -1, size)
    steps = (np.maximum(x.max(-1), 0) - np.minimum(x.min(-1), 0)) / 255
    assert np.all(np.abs(have - x) <= 0.51 * steps[..., None])
    assert np.abs(have - x).max(-1).min() > 0.3 * steps.min()
    want = ReferenceEvaluator(onnx.load_from_string(to_bytes(made.model, "m"))).run([name], sample)[0]
    np.testing.assert_array_equal(have.reshape(2, 64), want)


def test_a_row_of_zeros_stays_zero(net: ir.Model) -> None:
    made = quantize(net, with_scheme(QuantSpec(), "w8d8g32"), None).model
    for runner in (OnnxRunner(net), OnnxRunner(made)):
        (y,) = runner.run({"x": np.zeros((2, 64), np.float32)}).values()
        assert np.all(np.isfinite(y))


def test_layers_that_read_the_same_share_a_rounding(graph: Make) -> None:
    rng = np.random.default_rng(0)
    text = """(float[2,3,64] x, float[64,8] w, float[64,8] v) => (float[2,3,8] y)
        { a = MatMul(x, w)  b = MatMul(x, v)  y = Add(a, b) }"""
    model = graph(text, {name: rng.normal(size=(64, 8)).astype(np.float32) for name in "wv"})
    ops = [node.op_type for node in quantize(model, with_scheme(QuantSpec(), "w8d8g32"), None).model.graph]
    assert ops.count("QuantizeLinear") == 1 and ops.count("DequantizeLinear") == 3


def test_what_ranges_at_run_time_are_not_for(graph: Make) -> None:
    rng = np.random.default_rng(0)
    text = """(float[2,40,64] x, float[64,8] w, float[5,40] v) => (float[2,40,8] y, float[2,5,8] z, float[2,40,40] s)
        { y = MatMul(x, w)  z = MatMul(v, y)  t = Transpose<perm=[0,2,1]>(x)  s = MatMul(x, t) }"""
    model = graph(text, {"w": rng.normal(size=(64, 8)).astype(np.float32), "v": np.ones((5, 40), np.float32)})
    made = quantize(model, with_scheme(QuantSpec(), "w8d8g32"), None)
    assert [row["precision"] for row in made.report["layers"]] == ["w8d8", "float32", "float32"]
    reasons = [entry["reason"] for entry in made.report["kept_float"]]
    assert "no matrix that rows are multiplied by" in reasons[0] and "two activations" in reasons[1]


@pytest.mark.parametrize(
    ("scheme", "options"),
    [("int8", {}), ("w8d8g32", {"rounding": "gptq"}), ("w8d8", {"analyze": True}), ("w8d8", {"floor": 20.0})],
)
def test_what_asks_for_data_is_refused_without(net: ir.Model, scheme: str, options: dict[str, Any]) -> None:
    with pytest.raises(QuantizeError, match="needs calibration data"):
        quantize(net, with_scheme(QuantSpec(), scheme), None, **options)


def test_ranges_at_run_time_with_data_round_weights_for_it(net: ir.Model, normal: Make) -> None:
    made = quantize(net, with_scheme(QuantSpec(), "w8d8g32"), normal(256, (2, 64)))
    assert made.report["rounded"] and {row["precision"] for row in made.report["layers"]} == {"w8d8"}
    assert sqnr_db(net, made.model, normal(4, (2, 64), 1)) > 33


def test_inputs_that_the_group_does_not_divide_stay_float(graph: Make) -> None:
    text = "(float[2,40] x, float[40,64] w, float[64,8] v) => (float[2,8] y) { h = MatMul(x, w) y = MatMul(h, v) }"
    rng = np.random.default_rng(0)
    model = graph(
        text, {name: rng.normal(size=size).astype(np.float32) for name, size in (("w", (40, 64)), ("v", (64, 8)))}
    )
    made = quantize(model, with_scheme(QuantSpec(), "w8d8g32"), None)
    assert [row["precision"] for row in made.report["layers"]] == ["float32", "w8d8"]
    assert "its 40 inputs are no multiple of the 32" in made.report["kept_float"][0]["reason"]


def test_groups_that_do_not_fit_become_channels(graph: Make, normal: Make) -> None:
    rng = np.random.default_rng(0)
    text = "(float[2,40] x, float[40,8] w) => (float[2,8] y) { y = MatMul(x, w) }"
    model = graph(text, {"w": rng.normal(size=(40, 8)).astype(np.float32)})
    made = quantize(model, with_scheme(QuantSpec(), "w4g32", stores_int4=True), normal(4, (2, 40)))
    assert made.report["layers"][0]["granularity"] == "per-channel"


def test_the_ends_and_what_is_asked_for_get_8_bits(net: ir.Model, normal: Make) -> None:
    spec = with_scheme(QuantSpec(), "w4a4", stores_int4=True)
    rows = quantize(net, spec, normal(8, (2, 64))).report["layers"]
    assert [row["precision"] for row in rows] == ["int8", "w4a4", "int8"]
    assert [row["weight_bits"] for row in rows] == [8, 4, 8]
    wide = quantize(net, spec, normal(8, (2, 64)), wide=[rows[1]["name"]]).report["layers"]
    assert [row["precision"] for row in wide] == ["int8"] * 3


@pytest.mark.parametrize("name", ["int9", "w8d4", "w8d", "w8d8a8", "w9a8", "w4a5", "a8", "w1", "w4g33", "fp4"])
def test_unknown_schemes_are_refused(net: ir.Model, normal: Make, name: str) -> None:
    with pytest.raises(QuantizeError, match="expected"):
        quantize(net, with_scheme(QuantSpec(), name, stores_int4=True), normal(4, (2, 64)))


def test_an_unknown_layer_cannot_be_widened(net: ir.Model, normal: Make) -> None:
    with pytest.raises(QuantizeError, match="cannot give a layer 8 bits"):
        quantize(net, with_scheme(QuantSpec(), "w4a8"), normal(4, (2, 64)), wide=["nothing"])


def test_powers_of_two(net: ir.Model, normal: Make) -> None:
    made = quantize(net, QuantSpec(power_of_two=True), normal(8, (2, 64))).model
    scales = [node.inputs[1].const_value.numpy() for node in made.graph if node.op_type == "QuantizeLinear"]
    assert scales and all(np.log2(scale) == np.rint(np.log2(scale)) for scale in scales)
    assert sqnr_db(net, made, normal(8, (2, 64), 1)) > 25


@given(st.floats(-1e6, 0), st.floats(0, 1e6), st.sampled_from(["uint8", "int8", "uint16", "int4"]), st.booleans())
def test_a_power_of_two_covers_the_range(lo: float, hi: float, dtype: str, symmetric: bool) -> None:
    grid = Grid(dtype, symmetric, power_of_two=True)
    found = grid.fit(lo, hi)
    ends = np.array([lo, hi])
    assert np.all(np.abs(grid.round_trip(ends, found) - ends) <= float(found.scale) * 1.01)


@settings(max_examples=30)
@given(st.integers(2, 6), st.integers(1, 6), st.integers(1, 40), st.integers(0, 99))
def test_cut_scales_never_cost_more_than_full_ones(bits: int, rows: int, columns: int, seed: int) -> None:
    weights = np.random.default_rng(seed).standard_t(3, size=(rows, columns)).astype(np.float32)
    top = 2 ** (bits - 1) - 1
    full = (np.abs(weights).max(1) / top).astype(np.float32)

    def cost(scales: np.ndarray) -> np.ndarray:
        steps = scales[:, None]
        return np.asarray(((np.clip(np.rint(weights / steps), -top, top) * steps - weights) ** 2).sum(1))

    assert np.all(cost(weight_scales(weights, 0, bits)) <= cost(full) * 1.0001)


@settings(max_examples=30)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 1), st.integers(0, 99))
def test_groups_round_within_their_steps(outputs: int, groups: int, axis: int, seed: int) -> None:
    shape = (16 * groups, outputs) if axis == 0 else (outputs, 16 * groups)
    weights = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    coding = Coding(axis, 8, group=16)
    scales = coding.scales(weights)
    assert scales.size == outputs * groups
    steps = coding.steps(scales, shape)
    assert np.all(np.abs(coding.round(weights, scales) * steps - weights) <= steps * 1.001)
