"""Palettes: few values per table, near the best there are, zeros kept, and the numbers of the graph as good as that allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.quantize import QuantizeError, QuantSpec, quantize
from edgewise.quantize.palettes import learn_table, nearest
from edgewise.quantize.schemes import with_scheme
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_runner import OnnxRunner

Make = Callable[..., Any]
NET = """(float[2,64] x, float[64,96] w, float[96] b, float[64,96] v, float[64] c, float[64,8] u) => (float[2,8] y)
    { a = Gemm(x, w, b)  r = Relu(a)  d = Gemm<transB=1>(r, v, c)  s = Relu(d)  y = MatMul(s, u) }"""
SHAPES = {"w": (64, 96), "b": (96,), "v": (64, 96), "c": (64,), "u": (64, 8)}


def net(graph: Make, zeros: float = 0.0) -> ir.Model:
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    for name in ("w", "v"):
        arrays[name][rng.random(SHAPES[name]) < zeros] = 0
    return graph(NET, arrays)


def weights(model: ir.Model) -> dict[str, np.ndarray]:
    return {name: model.graph.initializers[name].const_value.numpy() for name in ("w", "v", "u")}  # type: ignore[union-attr]


def sqnr_db(model: ir.Model, made: ir.Model, data: Any) -> float:
    want, have = ([OnnxRunner(m).run(sample.inputs) for sample in data] for m in (model, made))
    return min(parity.sqnr_db for parity in compare_outputs(want, have))


@pytest.mark.parametrize(
    ("name", "least"), [("palette8", 40), ("palette6", 25), ("palette4", 17), ("palette2", 5), ("palette1", 2)]
)
def test_a_table_per_tensor(name: str, least: float, graph: Make, normal: Make) -> None:
    model = net(graph)
    made = quantize(model, with_scheme(QuantSpec(), name), normal(16, (2, 64)))
    bits = int(name[-1])
    assert all(len(np.unique(array)) <= 2**bits for array in weights(made.model).values())
    assert sqnr_db(model, made.model, normal(8, (2, 64), 1)) >= least
    assert {row["precision"] for row in made.report["layers"]} == {name}
    assert {row["weight_bits"] for row in made.report["layers"]} == {bits}
    assert [node.op_type for node in made.model.graph] == [node.op_type for node in model.graph]
    assert model.graph.initializers["w"].const_value.numpy().std() > 0.9, "the model that went in is untouched"  # type: ignore[union-attr]


def test_tables_per_group_of_output_channels(graph: Make, normal: Make) -> None:
    made = quantize(net(graph), with_scheme(QuantSpec(), "palette2g16"), normal(16, (2, 64))).model
    first, second = (
        weights(made)["w"],
        weights(made)["v"],
    )  # outputs are the columns of w and, transposed, the rows of v
    assert all(len(np.unique(first[:, at : at + 16])) <= 4 for at in range(0, 96, 16))
    assert all(len(np.unique(second[at : at + 16])) <= 4 for at in range(0, 64, 16))
    assert len(np.unique(first)) > 4
    assert len(np.unique(weights(made)["u"])) <= 4, "8 outputs, which 16 do not divide: one table"


def test_vectors_of_output_channels(graph: Make, normal: Make) -> None:
    model, data = net(graph), normal(16, (2, 64))
    made = quantize(model, with_scheme(QuantSpec(), "palette8v2"), data)
    pairs = weights(made.model)["v"].reshape(32, 2, 96).transpose(0, 2, 1).reshape(-1, 2)
    assert len(np.unique(pairs, axis=0)) <= 256
    assert {row["weight_bits"] for row in made.report["layers"]} == {4}
    scalars = quantize(model, with_scheme(QuantSpec(), "palette4"), data).model
    test = normal(8, (2, 64), 1)
    assert sqnr_db(model, made.model, test) > sqnr_db(model, scalars, test), "as many bits, and a better table"


def test_zeros_of_pruning_stay(graph: Make, normal: Make) -> None:
    model = net(graph, zeros=0.5)
    made = quantize(model, with_scheme(QuantSpec(), "palette4"), normal(16, (2, 64))).model
    for name in ("w", "v"):
        assert np.array_equal(weights(made)[name] == 0, weights(model)[name] == 0)
        assert len(np.unique(weights(made)[name])) <= 16


def test_inputs_that_are_large_count_more(graph: Make, normal: Make) -> None:
    """Weights that meet large inputs come out nearer to what they were than by a table that does not know of them."""
    model = net(graph)
    before = np.array(weights(model)["w"])
    before[:8] *= np.float32(0.1)
    model.graph.initializers["w"].const_value = ir.tensor(before, name="w")
    loud, even = (
        weights(quantize(model, with_scheme(QuantSpec(), "palette3"), normal(16, (2, 64), scale=scale)).model)["w"]
        for scale in (np.where(np.arange(64) < 8, 30, 1), 1.0)
    )
    assert np.abs(loud - before)[:8].mean() < 0.8 * np.abs(even - before)[:8].mean()


@given(st.integers(0, 1000), st.integers(2, 16), st.sampled_from([1, 2, 4]))
@settings(max_examples=30, deadline=None)
def test_no_entry_could_be_better(seed: int, entries: int, length: int) -> None:
    """Lloyd's condition: each entry is the mean of what is nearest to it; and far fewer errors than a grid makes."""
    vectors = np.random.default_rng(seed).standard_normal((600, length))
    table = learn_table(vectors, np.ones(600), entries)
    own = nearest(vectors, table)
    distances = np.linalg.norm(vectors[:, None] - table[None], axis=2)
    assert np.allclose(distances[np.arange(600), own], distances.min(axis=1))
    error = np.mean(distances.min(axis=1) ** 2)
    means = np.stack([vectors[own == k].mean(axis=0) if (own == k).any() else table[k] for k in range(entries)])
    better = np.mean(np.min(np.linalg.norm(vectors[:, None] - means[None], axis=2), axis=1) ** 2)
    assert better >= error * 0.97


def test_few_values_are_kept_exactly() -> None:
    vectors = np.array([[1.0], [2.0], [1.0], [-3.0]])
    table = learn_table(vectors, np.ones(4), 8)
    assert np.array_equal(table[nearest(vectors, table)], vectors)


@pytest.mark.parametrize("name", ["palette0", "palette9", "palette4v3", "palette", "palette4g0"])
def test_unknown_palettes_are_refused(name: str) -> None:
    with pytest.raises(QuantizeError, match="palette4"):
        with_scheme(QuantSpec(), name)
