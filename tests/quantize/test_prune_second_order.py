"""Pruning by what the layers read: against PyTorch's convolutions, numpy's least squares and all masks tried one by one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.quantize import QuantizeError, prune, sparsity_of
from edgewise.quantize.layers import describe
from edgewise.quantize.pruning.columns import columns
from edgewise.quantize.pruning.matrices import as_matrices
from edgewise.quantize.pruning.patterns import parse_pattern
from edgewise.quantize.pruning.solve import choose, refit
from edgewise.runtime.data import Dataset, random_data
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.tensors import TensorSpec

Graph = Callable[..., ir.Model]
_MLP = "(float[8, 24] x, float[24, 16] a, float[16] b, float[16, 8] c) => (float[8, 8] y) { %s }"
_NODES = "r = Relu(x) s = MatMul(r, a) t = Add(s, b) u = Relu(t) y = MatMul(u, c)"


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture
def mlp(graph: Graph) -> ir.Model:
    return graph(_MLP % _NODES, {"a": draw(24, 16), "b": draw(16, seed=1), "c": draw(16, 8, seed=2)})


@pytest.fixture
def data(dataset: Callable[..., Dataset]) -> Dataset:
    """Inputs that depend on one another, so that some can make good for others."""
    mix = draw(24, 24, seed=3) + 2 * draw(24, 4, seed=4) @ draw(4, 24, seed=5)
    return dataset([{"x": draw(8, 24, seed=10 + i) @ mix} for i in range(40)])


def array(model: ir.Model, name: str) -> np.ndarray:
    value = model.graph.initializers[name].const_value
    assert value is not None
    return value.numpy()


def stacked(model: ir.Model, data: Dataset, name: str) -> np.ndarray:
    runner = OnnxRunner(model, outputs=[name])
    return np.concatenate([runner.run(sample.inputs)[name] for sample in data]).astype(np.float64)


def loss(model: ir.Model, dense: ir.Model, data: Dataset) -> float:
    have, want = (stacked(m, data, "y") for m in (model, dense))
    return float(np.square(have - want).sum() / np.square(want).sum())


@settings(max_examples=30)
@given(
    st.sampled_from([1, 2]), st.integers(1, 3), st.integers(1, 2), st.integers(1, 2),
    st.tuples(*[st.integers(0, 2)] * 4), st.integers(0, 99),
)  # fmt: skip
def test_columns_times_weights_is_a_convolution(
    groups: int, kernel: int, stride: int, dilation: int, pads: tuple[int, ...], seed: int
) -> None:
    x, w = draw(2, 4, 9, 8, seed=seed), draw(6, 4 // groups, kernel, 2, seed=seed + 1)
    values = [ir.Value(name="x"), ir.Value(name="w", const_value=ir.tensor(w), shape=ir.Shape(w.shape))]
    names = {"group": groups, "strides": [stride, 1], "dilations": [dilation, 1], "pads": list(pads)}
    node = ir.node("Conv", values, attributes=names)
    ir.Graph([values[0]], node.outputs, nodes=[node], initializers=[values[1]])
    layer = describe(node)
    weights = as_matrices(layer, w).reshape(groups, 6 // groups, -1)
    made = columns(layer, x, rows=10**6) @ weights.transpose(0, 2, 1)
    padded = torch.nn.functional.pad(torch.from_numpy(x), (pads[1], pads[3], pads[0], pads[2]))
    want = torch.nn.functional.conv2d(
        padded, torch.from_numpy(w), stride=(stride, 1), dilation=(dilation, 1), groups=groups
    )
    flat = want.permute(1, 0, 2, 3).reshape(6, -1).numpy()
    np.testing.assert_allclose(made.transpose(0, 2, 1).reshape(6, -1), flat, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("pattern", "sparsity"), [("unstructured", 0.5), ("block:4x1", 0.5), ("2:4", 0.5)])
def test_what_stays_is_the_least_squares(pattern: str, sparsity: float) -> None:
    x, dense = draw(200, 16) @ draw(16, 16, seed=1), draw(4, 16, seed=2)
    hessian = (x.T @ x).astype(np.float64)
    mask = choose(hessian, dense @ hessian, parse_pattern(pattern, sparsity), (4, 1, 16), sparsity)
    made = refit(hessian, dense @ hessian, mask)
    assert mask.mean() == 1 - sparsity
    for row, keep, want in zip(made, mask, dense, strict=True):
        assert not row[~keep].any()
        np.testing.assert_allclose(
            row[keep], np.linalg.lstsq(x[:, keep], x @ want, rcond=None)[0], rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("seed", range(8))
def test_the_blocks_that_go_are_nearly_the_best_that_could(seed: int) -> None:
    """All ways to keep 3 of 6 blocks, each with its least squares."""
    x, dense = draw(300, 24, seed=seed) @ draw(24, 24, seed=seed + 50), draw(1, 24, seed=seed + 99)
    hessian = (x.T @ x).astype(np.float64)

    def error(mask: np.ndarray) -> float:
        difference = refit(hessian, dense @ hessian, mask) - dense
        return float(np.sum(difference @ hessian * difference))

    masks = [np.isin(np.arange(24) // 4, keep)[None] for keep in combinations(range(6), 3)]
    errors = sorted(error(mask) for mask in masks)
    found = error(choose(hessian, dense @ hessian, parse_pattern("block:4x1", 0.5), (1, 1, 24), 0.5))
    assert found <= errors[3] * (1 + 1e-9)  # among the best four of twenty


def test_a_layer_is_solved_for_what_it_reads_after_pruning(mlp: ir.Model, data: Dataset) -> None:
    """The second layer's weights are the least squares from the pruned hidden units to the dense outputs."""
    made = prune(mlp, pattern="block:4x1", sparsity=0.5, criterion="second_order", data=data).model
    hidden, want = stacked(made, data, "u"), stacked(mlp, data, "y")
    ridge = 0.01 * np.square(hidden).sum() / 16
    for column, before, target in zip(array(made, "c").T, array(mlp, "c").T, want.T, strict=True):
        kept = np.flatnonzero(column)
        assert len(kept) in (0, 4, 8, 12, 16)
        # The damping pulls towards the dense weights.
        gram = hidden[:, kept].T @ hidden[:, kept] + ridge * np.eye(len(kept))
        right = hidden[:, kept].T @ target + ridge * before[kept]
        np.testing.assert_allclose(column[kept], np.linalg.solve(gram, right), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "block:4x1", "block:4x4"])
def test_second_order_loses_less_than_magnitude(mlp: ir.Model, data: Dataset, pattern: str) -> None:
    made = {
        name: prune(mlp, pattern=pattern, sparsity=0.5, criterion=name, data=data)
        for name in ("magnitude", "second_order")
    }
    assert loss(made["second_order"].model, mlp, data) < 0.6 * loss(made["magnitude"].model, mlp, data)
    assert {entry["pattern"] for entry in sparsity_of(made["second_order"].model)} == {pattern}
    assert made["second_order"].report["samples"] == 40


def test_the_bias_makes_good_for_the_mean(mlp: ir.Model, data: Dataset) -> None:
    made = prune(mlp, pattern="2:4", sparsity=0.5, criterion="second_order", data=data).model
    np.testing.assert_allclose(
        stacked(made, data, "t").mean(axis=0), stacked(mlp, data, "t").mean(axis=0), rtol=1e-3, atol=1e-3
    )


def test_wanda_keeps_per_output_what_weighs_most(mlp: ir.Model, data: Dataset) -> None:
    made = prune(mlp, pattern="unstructured", sparsity=0.5, criterion="wanda", data=data).model
    norms = np.linalg.norm(stacked(mlp, data, "r"), axis=0)
    scores = np.abs(array(mlp, "a")) * norms[:, None]
    kept = scores > np.sort(scores, axis=0)[11]
    np.testing.assert_array_equal(array(made, "a"), np.where(kept, array(mlp, "a"), 0))


def test_convolutions_with_strides_and_groups(graph: Graph, normal: Callable[..., Dataset]) -> None:
    text = (
        "(float[1, 8, 9, 9] x, float[16, 4, 3, 3] w, float[16] b) => (float[1, 16, 5, 5] y)"
        "{ r = Relu(x) y = Conv<group = 2, strides = [2, 2], pads = [1, 1, 1, 1]>(r, w, b) }"
    )
    model = graph(text, {"w": draw(16, 4, 3, 3), "b": draw(16)})
    data = normal(64, (1, 8, 9, 9))
    made = {
        name: prune(model, pattern="block:4x2", sparsity=0.5, criterion=name, data=data).model
        for name in ("magnitude", "second_order")
    }
    assert loss(made["second_order"], model, data) < loss(made["magnitude"], model, data)
    assert sparsity_of(made["second_order"])[0]["pattern"] == "block:4x2"


def reasons(model: ir.Model, data: Dataset, **options: object) -> dict[str, str]:
    options = {"pattern": "block:4x1", "sparsity": 0.5, "criterion": "second_order", **options}
    return {entry["node"]: entry["reason"] for entry in prune(model, data=data, **options).report["refused"]}  # type: ignore[arg-type]


def test_too_few_samples_leave_a_layer_alone(mlp: ir.Model, data: Dataset) -> None:
    found = reasons(mlp, data, samples=2)  # 16 rows: enough for the second layer alone
    assert found == {"MatMul_1": "too few samples: 16 rows of calibration data for 24 weights per output"}


def test_zero_weights_are_left_alone(graph: Graph, data: Dataset) -> None:
    model = graph(_MLP % _NODES, {"a": draw(24, 16), "b": draw(16), "c": np.zeros((16, 8), np.float32)})
    assert reasons(model, data) == {"MatMul_4": "its weights are all zero"}
    assert reasons(model, data, criterion="magnitude") == {"MatMul_4": "its weights are all zero"}


def test_a_layer_that_reads_zeros_is_left_alone(graph: Graph, data: Dataset) -> None:
    model = graph(_MLP % _NODES, {"a": draw(24, 16), "b": np.full(16, -1e6, np.float32), "c": draw(16, 8)})
    with_zeros = reasons(model, data, skip=["MatMul_1"], pattern="unstructured", criterion="magnitude")
    assert "MatMul_4" not in with_zeros
    with pytest.raises(QuantizeError, match="nothing to prune"):
        prune(model, pattern="2:4", sparsity=0.5, criterion="second_order", data=data, skip=["MatMul_1"])


def test_shared_weights_are_left_alone(graph: Graph, normal: Callable[..., Dataset]) -> None:
    text = (
        "(float[8, 16] x, float[16, 16] a, float[16, 16] c) => (float[8, 16] y)"
        "{ r = Relu(x) s = MatMul(r, a) t = MatMul(s, a) y = MatMul(t, c) }"
    )
    model = graph(text, {"a": draw(16, 16), "c": draw(16, 16)})
    found = reasons(model, normal(8, (8, 16)))
    assert list(found) == ["MatMul_1", "MatMul_2"]
    assert "share its weights" in found["MatMul_1"]


def test_dims_that_the_pattern_does_not_divide(mlp: ir.Model, data: Dataset) -> None:
    assert reasons(mlp, data, pattern="block:24x1") == {"MatMul_4": "16 inputs are no multiple of 24"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criterion": "best"}, "expected magnitude, wanda, second_order"),
        ({"criterion": "wanda", "data": None}, "no calibration data"),
        ({"criterion": "second_order", "samples": 0}, "0 samples"),
        ({"criterion": "wanda", "pattern": "channel"}, "found criterion wanda; expected magnitude or second_order"),
    ],
)
def test_requests_that_cannot_be(mlp: ir.Model, data: Dataset, options: dict, message: str) -> None:
    with pytest.raises(QuantizeError) as error:
        prune(mlp, **{"pattern": "2:4", "sparsity": 0.5, "data": data, **options})
    assert message in str(error.value)


def test_random_data_is_refused(mlp: ir.Model) -> None:
    random = random_data([TensorSpec("x", "float32", (8, 24))], 8)
    with pytest.raises(QuantizeError, match="random numbers"):
        prune(mlp, pattern="2:4", sparsity=0.5, criterion="second_order", data=random)


def test_nan_in_the_data_is_named(mlp: ir.Model, dataset: Callable[..., Dataset]) -> None:
    samples = [{"x": draw(8, 24)}, {"x": np.full((8, 24), np.nan, np.float32)}]
    with pytest.raises(QuantizeError) as error:
        prune(mlp, pattern="2:4", sparsity=0.5, criterion="second_order", data=dataset(samples))
    assert "sample 2" in str(error.value) and "'x'" in str(error.value)


def test_the_same_data_give_the_same_weights(mlp: ir.Model, data: Dataset) -> None:
    first, second = (
        prune(mlp, pattern="2:4", sparsity=0.5, criterion="second_order", data=data).model for _ in range(2)
    )
    assert array(first, "a").tobytes() == array(second, "a").tobytes()
