"""Sharing the sparsity out: rules against their formulas, the search against all choices, the measured one on networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.quantize import QuantizeError, prune
from edgewise.quantize.pruning.densities import Item, erk, globally
from edgewise.quantize.pruning.patterns import parse_pattern
from edgewise.quantize.pruning.sensitivity import Curve, share_out
from edgewise.runtime.data import Dataset
from edgewise.runtime.onnx_runner import OnnxRunner

Graph = Callable[..., ir.Model]
_TEXT = (
    "(float[8, 16] x, float[16, 32] a, float[32, 32] b, float[1] s, float[32, 16] c) => (float[8, 32] y, float[8, 16] z)"
    "{ r = Relu(x) h = MatMul(r, a) t = MatMul(h, b) y = Mul(t, s) u = Relu(h) z = MatMul(u, c) }"
)
_LAYERS = {"a": "MatMul_1", "b": "MatMul_2", "c": "MatMul_5"}


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture
def model(graph: Graph) -> ir.Model:
    constants = {"a": draw(16, 32), "b": draw(32, 32, seed=1), "s": np.ones(1, np.float32), "c": draw(32, 16, seed=2)}
    return graph(_TEXT, constants)


@pytest.fixture
def data(normal: Callable[..., Dataset]) -> Dataset:
    return normal(24, (8, 16))


def densities(made: ir.passes.PassResult) -> dict[str, float]:
    return {entry["weight"]: entry["density"] for entry in made.report["layers"]}  # type: ignore[attr-defined]


def items(*shapes: tuple[int, int, int]) -> list[Item]:
    return [Item(str(i), draw(*shape, seed=i) * (i + 1)) for i, shape in enumerate(shapes)]


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 8), st.sampled_from([1, 9]), st.integers(1, 8)), min_size=2, max_size=5),
    st.floats(0.1, 0.9),
)
def test_the_rules_reach_the_sparsity_that_was_asked_for(shapes: list[tuple[int, int, int]], sparsity: float) -> None:
    shapes = [(4 * o, p, 4 * i) for o, p, i in shapes]
    sizes = np.array([np.prod(shape) for shape in shapes])
    for rule in (erk, globally):
        shares = rule(items(*shapes), parse_pattern("block:4x1", sparsity), sparsity)
        assert all(0 <= share <= 0.98 for share in shares)
        assert abs(sizes @ shares / sizes.sum() - sparsity) < 0.03 + 4 / sizes.sum()  # whole blocks go


def test_erk_is_proportional_to_the_sum_of_dims() -> None:
    shapes = [(64, 9, 64), (128, 9, 128)]
    found = 1 - np.array(erk(items(*shapes), parse_pattern("unstructured", 0.9), 0.9))
    wanted = np.array([sum(shape) / np.prod(shape) for shape in shapes])
    np.testing.assert_allclose(found / found[0], wanted / wanted[0])


def test_global_is_one_threshold_on_lamp_scores() -> None:
    layers = items((4, 1, 8), (6, 1, 4))
    shares = globally(layers, parse_pattern("unstructured", 0.5), 0.5)
    scores = []
    for layer in layers:
        squares = np.square(layer.weights.reshape(-1).astype(np.float64))
        scores.append(np.array([value / squares[squares >= value].sum() for value in squares]))
    threshold = np.sort(np.concatenate(scores))[27]
    assert shares == [pytest.approx(np.mean(score <= threshold)) for score in scores]


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 4), st.floats(0.2, 0.9))
def test_sharing_out_is_no_worse_than_any_choice_of_measured_points(seed: int, layers: int, part: float) -> None:
    rng = np.random.default_rng(seed)
    curves = []
    for _ in range(layers):
        errors, size = np.cumsum(rng.exponential(size=4)) - 0.0, rng.uniform(1, 10)
        sparsities = [0.0, 0.3, 0.6, 0.9]
        curves.append(Curve(sparsities, [0.0, *errors[1:]], [size * (1 - s) for s in sparsities]))
    load = sum(curve.loads[0] for curve in curves) * max(part, 0.11)

    def error(curve: Curve, sparsity: float) -> float:
        points = curve.hull()
        return float(np.interp(sparsity, [curve.sparsities[i] for i in points], [curve.errors[i] for i in points]))

    shares = share_out(curves, load)
    assert sum(np.interp(s, c.sparsities, c.loads) for s, c in zip(shares, curves, strict=True)) <= load * (1 + 1e-9)
    found = sum(error(curve, share) for curve, share in zip(curves, shares, strict=True))
    for choice in product(range(4), repeat=layers):
        if sum(curve.loads[i] for curve, i in zip(curves, choice, strict=True)) <= load:
            assert found <= sum(curve.errors[i] for curve, i in zip(curves, choice, strict=True)) + 1e-9


@pytest.mark.parametrize("criterion", ["magnitude", "second_order"])
def test_the_layer_that_matters_keeps_more(model: ir.Model, data: Dataset, criterion: str) -> None:
    """Most of what the second layer reads is nothing: its weights there can go."""
    first = np.array(model.graph.initializers["a"].const_value.numpy())  # type: ignore[union-attr]
    first[:, :24] *= 1e-3
    model.graph.initializers["a"].const_value = ir.tensor(first, name="a")
    options = {"pattern": "unstructured", "sparsity": 0.5, "criterion": criterion, "data": data}
    plain, shared = (prune(model, densities=name, **options) for name in ("uniform", "sensitivity"))  # type: ignore[arg-type]
    assert shared.report["sparsity"] == pytest.approx(plain.report["sparsity"], abs=0.02)
    assert len({round(density, 2) for density in densities(shared).values()}) > 1

    def loss(made: ir.Model) -> float:
        runners = OnnxRunner(made), OnnxRunner(model)
        pairs = [[runner.run(sample.inputs) for runner in runners] for sample in data]
        return float(
            np.mean(
                [np.square(have[k] - want[k]).sum() / np.square(want[k]).sum() for have, want in pairs for k in want]
            )
        )

    assert loss(shared.model) < loss(plain.model)


def table(path: Path, costs: dict[str, list[list[float]]]) -> Path:
    shapes = {"a": [16, 32], "b": [32, 32], "c": [32, 16]}
    layers = [{"op": "MatMul", "weight": shapes[name], "costs": pairs} for name, pairs in costs.items()]
    path.write_text(json.dumps({"schema_version": 1, "unit": "ms", "layers": layers}))
    return path


def test_a_table_of_costs_takes_the_time_and_not_the_weights(model: ir.Model, data: Dataset, tmp_path: Path) -> None:
    steep = {"a": [[0, 1], [1, 1]], "b": [[0, 0], [1, 9]], "c": [[0, 1], [1, 1]]}  # only the second gains by zeros
    costs = table(tmp_path / "costs.json", steep)
    options = {"pattern": "unstructured", "sparsity": 0.5, "data": data, "densities": "sensitivity"}
    kept = densities(prune(model, costs=costs, **options))  # type: ignore[arg-type]
    assert kept["b"] == pytest.approx(0.5, abs=0.01)
    assert kept["a"] == kept["c"] == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ('{"layers": []}', "schema_version 1"),
        ('{"schema_version": 1, "layers": [{"op": "MatMul"}]}', "an entry that is none"),
        ('{"schema_version": 1, "layers": [{"op": "MatMul", "weight": [16, 32], "costs": [1, 2]}]}', "no pairs"),
        ('{"schema_version": 1, "layers": []}', "no entry for MatMul with weights [16, 32]"),
    ],
)
def test_a_table_that_does_not_serve(model: ir.Model, data: Dataset, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "costs.json").write_text(text)
    with pytest.raises(QuantizeError) as error:
        prune(
            model,
            pattern="unstructured",
            sparsity=0.5,
            data=data,
            densities="sensitivity",
            costs=tmp_path / "costs.json",
        )
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"densities": "fair"}, "expected uniform, erk, global, sensitivity, learned"),
        ({"densities": "learned"}, "weights that become zero; expected a pattern whose tensors shrink"),
        ({"densities": "erk", "pattern": "2:4"}, "the pattern has one density"),
        ({"densities": "sensitivity"}, "no calibration data"),
        ({"densities": "erk", "pattern": "channel"}, "(pattern channel)"),
        ({"costs": "c.json"}, "a table of costs with densities uniform"),
    ],
)
def test_requests_that_cannot_be(model: ir.Model, options: dict, message: str) -> None:
    with pytest.raises(QuantizeError) as error:
        prune(model, **{"pattern": "unstructured", "sparsity": 0.5, **options})
    assert message in str(error.value)
