"""What the passes cannot do: each reason by its words, in the error or in the report, and never a silently worse network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.quantize import QuantizeError, QuantSpec, prune, quantize
from edgewise.quantize.schemes import with_scheme

Make = Callable[..., Any]
Options = dict[str, Any]

SYMMETRIC = QuantSpec(activation_dtype="int8", activation_symmetric=True)
PRODUCT = "(float[2,8] x, float[8,8] w) => (float[2,8] y) { y = MatMul(x, w) }"


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def broken(*shape: int) -> np.ndarray:
    array = weights(*shape)
    array.flat[1] = np.nan
    return array


@pytest.mark.parametrize(
    ("text", "constants", "spec", "reason"),
    [
        (PRODUCT, {"w": broken(8, 8)}, QuantSpec(), "its weights hold NaN or infinity"),
        (PRODUCT, {"w": weights(8, 8)}, QuantSpec(op_types=("Conv",)), "the target has no integer form of it"),
        (
            "(double[2,8] x, double[8,8] w) => (double[2,8] y) { y = MatMul(x, w) }",
            {"w": weights(8, 8).astype(np.float64)},
            QuantSpec(),
            "it does not compute in float32",
        ),
        (
            "(float[2,0] x, float[0,8] w) => (float[2,8] y) { y = MatMul(x, w) }",
            {"w": weights(0, 8)},
            QuantSpec(),
            "its weights are empty",
        ),
        (
            "(float[1,2,4,4] x, float[1,2,4,4] z) => (float[1,1,1,1] y) { w = Neg(z)  y = Conv(x, w) }",
            {},
            QuantSpec(),
            "its weights are computed in the graph, not constant",
        ),
        (
            "(float[2,8] x) => (float[2,2] y) { t = Transpose(x)  y = MatMul(x, t) }",
            {},
            with_scheme(QuantSpec(), "w4"),
            "it has no weights, and only weights are quantized",
        ),
        (
            "(float[2,8] x) => (float[2,2] y) { t = Transpose(x)  y = MatMul(x, t) }",
            {},
            QuantSpec(attention=False),
            "it multiplies two activations, which the target keeps in float",
        ),
        (
            "(float[2,8] x) => (float[8,8] y) { s = Softmax(x)  t = Transpose(s)  y = MatMul(t, x) }",
            {},
            SYMMETRIC,
            "it multiplies probabilities: of a symmetric grid only half of the steps lie between 0 and 1",
        ),
    ],
)
def test_a_layer_that_stays_in_float_says_why(
    text: str, constants: Options, spec: QuantSpec, reason: str, graph: Make, dataset: Make
) -> None:
    model = graph(text, constants)
    with pytest.raises(QuantizeError, match="nothing to quantize") as error:
        quantize(model, spec, dataset([zeros_like_inputs(model)] * 2))
    assert f"({reason})" in str(error.value)


def zeros_like_inputs(model: ir.Model) -> dict[str, np.ndarray]:
    return {
        str(value.name): np.zeros([int(dim) for dim in value.shape], value.dtype.numpy())  # type: ignore[union-attr]
        for value in model.graph.inputs
    }


@pytest.mark.parametrize(
    ("text", "constants", "reason"),
    [
        (
            "(float[2,8] x, float[8,8] w) => (float[2,8] y) { b = ReduceSum <keepdims = 0> (x)  y = Gemm(x, w, b) }",
            {"w": weights(8, 8)},
            "it is computed in the graph",
        ),
        (
            "(float[2,8] x, float[8,8] w, float[8] b) => (float[2,8] y) { y = Gemm <alpha = 0.5> (x, w, b) }",
            {"w": weights(8, 8), "b": weights(8)},
            "Gemm multiplies it, or the product it is added to",
        ),
        (
            "(float[2,8] x, float[8,8] w, float[1] b) => (float[2,8] y) { y = Gemm(x, w, b) }",
            {"w": weights(8, 8), "b": weights(1)},
            "its shape is [1], not one entry for each of 8 output channels",
        ),
        (
            "(float[2,8] x, float[8,8] w, float[8] b) => (float[2,8] y) { y = Gemm(x, w, b) }",
            {"w": weights(8, 8), "b": broken(8)},
            "it is float32, not finite float32",
        ),
    ],
)
def test_a_bias_that_stays_in_float_says_why(
    text: str, constants: Options, reason: str, graph: Make, dataset: Make
) -> None:
    data = dataset([{"x": weights(2, 8, seed=seed)} for seed in range(8)])
    notes = quantize(graph(text, constants), QuantSpec(balance=False), data, rounding="squant").report["notes"]
    assert any(note.endswith(f"its bias stays in float: {reason}") for note in notes)


@pytest.mark.parametrize(
    ("text", "shape", "constants", "reason"),
    [
        (
            "(float[8,2] x, float[8,8] w) => (float[8,2] y) { y = MatMul(w, x) }",
            (8, 2),
            {"w": weights(8, 8)},
            "its weights are no matrix on the right",
        ),
        (
            "(float[1,8200,1,1] x, float[1,8200,1,1] w) => (float[1,1,1,1] y) { y = Conv(x, w) }",
            (1, 8200, 1, 1),
            {"w": weights(1, 8200, 1, 1)},
            "it has too many weights per output",
        ),
        (PRODUCT, (2, 8), {"w": weights(8, 8)}, "too few samples: 4 rows of calibration data for 8 weights per output"),
    ],
)
def test_a_layer_that_is_rounded_without_data_says_why(
    text: str, shape: tuple[int, ...], constants: Options, reason: str, graph: Make, dataset: Make
) -> None:
    data = dataset([{"x": weights(*shape, seed=seed)} for seed in range(2)])
    notes = quantize(graph(text, constants), QuantSpec(), data, rounding="gptq").report["notes"]
    assert any(note.endswith(f"its weights are rounded without data: {reason}") for note in notes)


def test_a_network_that_overflows_is_named(graph: Make, dataset: Make) -> None:
    model = graph(
        "(float[2,8] x, float[8,8] w) => (float[2,8] y) { e = Exp(x)  y = MatMul(e, w) }", {"w": weights(8, 8)}
    )
    data = dataset([{"x": np.full((2, 8), 100, np.float32)}])
    with pytest.raises(QuantizeError, match=r"computes NaN or infinity \(tensor 'e' on calibration sample 1"):
        quantize(model, QuantSpec(), data)


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        (QuantSpec(weight_bits=9), "QuantSpec.weight_bits"),
        (QuantSpec(weight_group=33), "QuantSpec.weight_group"),
        (QuantSpec(activation_dtype="int3"), "QuantSpec.activation_dtype"),
    ],
)
def test_a_form_that_cannot_be_written_is_refused(spec: QuantSpec, where: str, graph: Make, normal: Make) -> None:
    with pytest.raises(QuantizeError, match="cannot quantize in this form") as error:
        quantize(graph(PRODUCT, {"w": weights(8, 8)}), spec, normal(4, (2, 8)))
    assert where in str(error.value)


BEHIND = """(float[2,8] x, float[8,8] v, float[8,8] o, {w}) => (float[{out}] y, float[2,8] z)
    {{ h = MatMul(x, v)  z = MatMul(h, o)  {rest} }}"""


def behind(w: str, out: str, rest: str) -> str:
    """A layer that reads the network's input, one that can be pruned, and what is to be looked at."""
    return BEHIND.format(w=w, out=out, rest=rest)


@pytest.mark.parametrize(
    ("text", "shape", "reason"),
    [
        (behind("float[8,8] w", "2,8", "y = MatMul(h, w)"), "broken", "its weights hold NaN or infinity"),
        (
            behind("float[3,8,8] w", "3,2,8", "y = MatMul(h, w)"),
            (3, 8, 8),
            "its weights are a stack of matrices",
        ),
        (
            behind("float[8,2] w", "8,8", "y = MatMul(w, h)"),
            (8, 2),
            "its weights stand on the left, where they have no reduction axis of their own",
        ),
        (
            behind("float[8,8] w", "2,8", "a = MatMul(h, w)  y = Gemm<transB = 1>(a, w)"),
            (8, 8),
            "its weights are used in several ways",
        ),
        (behind("float[8,6] w", "2,6", "y = MatMul(h, w)"), (8, 6), "6 outputs are no multiple of 4"),
        (behind("float[8,8] w", "2,8", "y = MatMul(h, w)"), "zeros", "its weights are all zero"),
    ],
)
def test_a_layer_that_is_not_pruned_says_why(text: str, shape: Any, reason: str, graph: Make) -> None:
    array = {"broken": broken(8, 8), "zeros": np.zeros((8, 8), np.float32)}.get(str(shape))
    model = graph(text, {"v": weights(8, 8), "o": weights(8, 8), "w": weights(*shape) if array is None else array})
    report = prune(model, pattern="block:4x4", sparsity=0.5).report
    assert {row["reason"] for row in report["refused"] if row["node"] != "MatMul_0"} == {reason}
    assert {row["name"] for row in report["layers"]} == {"MatMul_1"}


@pytest.mark.parametrize(
    ("node", "w", "shape", "reason"),
    [
        (
            "y = ConvTranspose(h, w)",
            (8, 8, 1, 1),
            (1, 4, 4, 4),
            "it is a transposed convolution, for which there is no second-order solve",
        ),
        ("y = Conv(h, w)", (8, 8, 1, 1, 1), (1, 4, 4, 4, 4), "it is a convolution of other than one or two dims"),
        ("y = Conv <group = 8> (h, w)", (8, 1, 1, 1), (1, 4, 4, 4), "it is a depthwise convolution: few weights, each of them needed"),
    ],
)  # fmt: skip
def test_a_convolution_that_is_not_solved_for_says_why(
    node: str, w: tuple[int, ...], shape: tuple[int, ...], reason: str, graph: Make, dataset: Make
) -> None:
    form, ones = ",".join(map(str, shape[2:])), ",".join("1" * (len(shape) - 2))
    text = f"""(float[1,4,{form}] x, float[2,8] r, float[8,4,{ones}] v, float[{",".join(map(str, w))}] w, float[8,8] a, float[8,8] o)
        => (float[1,8,{form}] y, float[2,8] z) {{ h = Conv(x, v)  {node}  s = MatMul(r, a)  z = MatMul(s, o) }}"""
    constants = {"v": weights(8, 4, *[1] * (len(shape) - 2)), "w": weights(*w), "a": weights(8, 8), "o": weights(8, 8)}
    data = dataset([{"x": weights(*shape, seed=seed), "r": weights(2, 8, seed=seed)} for seed in range(16)])
    model = graph(text, constants)
    report = prune(model, pattern="unstructured", sparsity=0.5, criterion="second_order", data=data).report
    assert [row["reason"] for row in report["refused"] if "input" not in row["reason"]] == [reason]
    assert {row["name"] for row in report["layers"]} == {"MatMul_3"}


def test_samples_that_break_pruning_are_named(graph: Make, dataset: Make) -> None:
    text = "(float[2,8] x, float[8,8] v, float[8,8] w) => (float[2,8] y) { h = MatMul(x, v)  e = Exp(h)  y = MatMul(e, w) }"
    model = graph(text, {"v": 100 * weights(8, 8), "w": weights(8, 8)})
    data = dataset([{"x": weights(2, 8, seed=seed)} for seed in range(8)])
    with pytest.raises(
        QuantizeError, match=r"cannot prune by what the layers read \(tensor 'e' on calibration sample 1"
    ):
        prune(model, pattern="unstructured", sparsity=0.5, criterion="second_order", data=data)


def test_a_table_of_costs_that_is_none_is_refused(graph: Make, normal: Make, tmp_path: Path) -> None:
    table = tmp_path / "costs.json"
    table.write_text("[]")
    model = graph(behind("float[8,8] w", "2,8", "y = MatMul(h, w)"), {name: weights(8, 8) for name in "vow"})
    options: Options = {"criterion": "second_order", "data": normal(8, (2, 8)), "densities": "sensitivity"}
    with pytest.raises(QuantizeError, match="cannot use the table of costs") as error:
        prune(model, pattern="unstructured", sparsity=0.5, costs=table, **options)
    assert str(table) in str(error.value)


@pytest.mark.parametrize(
    ("pattern", "sparsity", "message"),
    [("2:4", 0.3, "the pattern does not have this sparsity"), ("unstructured", 1.0, "a fraction from 0 to below 1")],
)
def test_a_sparsity_that_cannot_be_is_refused(pattern: str, sparsity: float, message: str, graph: Make) -> None:
    with pytest.raises(QuantizeError, match=message):
        prune(graph(PRODUCT, {"w": weights(8, 8)}), pattern=pattern, sparsity=sparsity)
