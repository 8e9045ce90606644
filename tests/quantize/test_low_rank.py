"""Factors in place of layers: exact where the weights have the rank, least squares where they have not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.quantize import QuantizeError, prune
from edgewise.runtime.data import Dataset
from edgewise.runtime.onnx_runner import OnnxRunner

Graph = Callable[..., ir.Model]
Normal = Callable[..., Dataset]

_MLP = (
    "(float[1, 9, 32] x, float[32, 64] a, float[64] ab, float[64, 32] b, float[32] bb) => (float[1, 9, 32] y)"
    "{ n = Tanh(x) t = MatMul(n, a) u = Add(t, ab) v = Relu(u) w = MatMul(v, b) y = Add(w, bb) }"
)
_CONV = (
    "(float[1, 16, 8, 8] x, float[32, 16, 3, 3] a, float[32] ab, float[5, 32] h, float[5] hb) => (float[1, 5] y)"
    "{ n = Tanh(x) t = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(n, a, ab) r = Relu(t) p = GlobalAveragePool(r)"
    "  f = Flatten(p) y = Gemm<transB = 1, alpha = 0.5>(f, h, hb) }"
)


def draw(*shape: int, rank: int = 0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if not rank:
        return rng.normal(size=shape).astype(np.float32)
    width = int(np.prod(shape[1:]))
    return (rng.normal(size=(shape[0], rank)) @ rng.normal(size=(rank, width)) / rank).reshape(shape).astype(np.float32)


def run(model: ir.Model, *shape: int, seed: int = 7) -> np.ndarray:
    return OnnxRunner(model).run({"x": draw(*shape, seed=seed)})["y"]


@pytest.mark.parametrize("with_data", [False, True])
def test_weights_of_low_rank_lose_nothing(graph: Graph, normal: Normal, with_data: bool) -> None:
    arrays = {"a": draw(32, 64, rank=8), "ab": draw(64), "b": draw(64, 32, rank=8), "bb": draw(32)}
    model = graph(_MLP, arrays)
    options = {"criterion": "second_order", "data": normal(40, (1, 9, 32))} if with_data else {}
    made = prune(model, pattern="low-rank", sparsity=0.55, **options)  # type: ignore[arg-type]
    np.testing.assert_allclose(run(made.model, 1, 9, 32), run(model, 1, 9, 32), rtol=1e-3, atol=1e-3)
    assert [node.op_type for node in made.model.graph].count("MatMul") == 4
    assert {entry["rank"] for entry in made.report["layers"]} == {8}
    held = sum(made.model.graph.initializers[name].const_value.size for name in ("a", "a_thin", "b", "b_thin"))  # type: ignore[union-attr]
    assert held <= 0.45 * 2 * 32 * 64
    assert made.model.graph.outputs[0].name == "y"


def test_a_convolution_becomes_a_thin_one_and_a_pointwise_one(graph: Graph) -> None:
    arrays = {"a": draw(32, 16, 3, 3, rank=8), "ab": draw(32), "h": draw(5, 32), "hb": draw(5)}
    model = graph(_CONV, arrays)
    head = next(str(node.name) for node in model.graph if node.op_type == "Gemm")
    made = prune(model, pattern="low-rank", sparsity=0.6, skip=[head])
    np.testing.assert_allclose(run(made.model, 1, 16, 8, 8), run(model, 1, 16, 8, 8), rtol=1e-3, atol=1e-3)
    assert [made.model.graph.initializers[name].shape for name in ("a_thin", "a")] == [(8, 16, 3, 3), (32, 8, 1, 1)]


def test_a_gemm_keeps_its_factor_and_layout(graph: Graph) -> None:
    arrays = {"a": draw(32, 16, 3, 3), "ab": draw(32), "h": draw(40, 32, rank=8), "hb": draw(40)}
    model = graph(
        _CONV.replace("float[5, 32] h, float[5] hb", "float[40, 32] h, float[40] hb").replace("[1, 5]", "[1, 40]"),
        arrays,
    )
    conv = next(str(node.name) for node in model.graph if node.op_type == "Conv")
    made = prune(model, pattern="low-rank", sparsity=0.5, skip=[conv])
    np.testing.assert_allclose(run(made.model, 1, 16, 8, 8), run(model, 1, 16, 8, 8), rtol=1e-3, atol=1e-3)
    assert [made.model.graph.initializers[name].shape for name in ("h_thin", "h")] == [(8, 32), (40, 8)]


def test_data_find_the_rank_of_what_is_read(graph: Graph, dataset: Callable[..., Dataset]) -> None:
    """The weights have full rank, the activations have not: only with data does nothing get lost."""
    arrays = {"a": draw(32, 64), "ab": draw(64), "b": draw(64, 32, rank=8), "bb": draw(32)}
    model = graph(_MLP, arrays)
    basis = np.linalg.qr(draw(32, 32, seed=3))[0][:, :6]
    rng = np.random.default_rng(4)
    samples = [
        {"x": np.arctanh(np.tanh(rng.normal(size=(1, 9, 6)) * 0.1) @ basis.T).astype(np.float32)} for _ in range(60)
    ]
    data = dataset(samples)
    errors = []
    for options in ({}, {"criterion": "second_order", "data": data}):
        made = prune(model, pattern="low-rank", sparsity=0.5, **options)  # type: ignore[arg-type]
        pairs = [[OnnxRunner(each).run(sample)["y"] for each in (model, made.model)] for sample in samples[:10]]
        errors.append(sum(float(np.square(have - want).sum()) for want, have in pairs))
    assert errors[1] < 0.05 * errors[0]


def test_the_bias_makes_good_for_the_mean(graph: Graph, dataset: Callable[..., Dataset]) -> None:
    text = "(float[1, 9, 32] x, float[32, 48] a, float[48] ab) => (float[1, 9, 48] y) { n = Tanh(x) t = MatMul(n, a) y = Add(t, ab) }"
    model = graph(text, {"a": draw(32, 48), "ab": draw(48)})
    rng = np.random.default_rng(5)
    samples = [{"x": (rng.normal(size=(1, 9, 32)) * 0.3 + 0.5).astype(np.float32)} for _ in range(20)]
    made = prune(model, pattern="low-rank", sparsity=0.6, criterion="second_order", data=dataset(samples))
    want, have = (
        np.mean([OnnxRunner(each).run(sample)["y"] for sample in samples], axis=(0, 1, 2))
        for each in (model, made.model)
    )
    np.testing.assert_allclose(have, want, atol=1e-4)


def test_the_layer_that_needs_its_rank_keeps_it(graph: Graph, normal: Normal) -> None:
    arrays = {"a": draw(32, 64, rank=4), "ab": draw(64), "b": draw(64, 32), "bb": draw(32)}
    made = prune(
        graph(_MLP, arrays), pattern="low-rank", sparsity=0.3, criterion="second_order", data=normal(40, (1, 9, 32))
    )
    assert [entry["weight"] for entry in made.report["layers"]] == ["a"]
    assert "no rank of it saves as much" in made.report["refused"][-1]["reason"]


def test_few_rows_leave_a_layer_alone(graph: Graph, normal: Normal) -> None:
    arrays = {"a": draw(32, 64), "ab": draw(64), "b": draw(64, 32), "bb": draw(32)}
    with pytest.raises(QuantizeError, match="too few samples: 9 rows of calibration data for 32 weights"):
        prune(
            graph(_MLP, arrays), pattern="low-rank", sparsity=0.3, criterion="second_order", data=normal(1, (1, 9, 32))
        )
