"""Palettes: few values per table, near the best there are, zeros kept, and the numbers of the graph as good as that allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.quantize import QuantizeError, QuantSpec, quantize
from edgewise.quantize.palettes import learn_table, nearest
from edgewise.quantize.passes.settle_palettes import SettlePalettes
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


@pytest.mark.parametrize("name", ["palette3", "palette2g16", "palette4v2"])
def test_entries_chosen_together_are_better(
    name: str, graph: Make, dataset: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On samples that nothing was chosen on, out of the same tables: no more values than before, and zeros stay."""
    model, rng = net(graph, zeros=0.2), np.random.default_rng(5)
    mix = rng.normal(size=(64, 64))  # inputs that go together: errors can make each other good
    draw = [{"x": (rng.normal(size=(2, 16)) @ mix[:16]).astype(np.float32)} for _ in range(96)]
    data, test = dataset(draw[:80]), dataset(draw[80:])
    spec = with_scheme(QuantSpec(), name)
    made = quantize(model, spec, data)
    assert len(made.report["settled"]) >= 2
    monkeypatch.setattr(SettlePalettes, "call", lambda self, model: ir.passes.PassResult(model, modified=False))
    alone = quantize(model, spec, data)
    assert sqnr_db(model, made.model, test) >= sqnr_db(model, alone.model, test) + 1
    for key in ("w", "v"):
        together, single = weights(made.model)[key], weights(alone.model)[key]
        assert set(np.unique(together)) <= set(np.unique(single))
        assert np.array_equal(together[single == 0], single[single == 0]) or "v" in name


@given(st.integers(0, 1000), st.integers(2, 16), st.sampled_from([1, 2, 4]))
@settings(max_examples=30)
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


EMBEDDED = "(int64[2,5] x, float[512,64] e, float[64,8] u) => (float[2,5,8] y) { a = Gather(e, x)  y = MatMul(a, u) }"


@pytest.mark.parametrize("scheme", ["w8", "palette4", "int8"])
def test_embeddings_are_compressed_where_the_target_wants_it(scheme: str, graph: Make, dataset: Make) -> None:
    rng = np.random.default_rng(0)
    table, u = rng.normal(size=(512, 64)).astype(np.float32), rng.normal(size=(64, 8)).astype(np.float32)
    model, data = (
        graph(EMBEDDED, {"e": table, "u": u}),
        dataset([{"x": rng.integers(0, 512, (2, 5))} for _ in range(16)]),
    )
    base = QuantSpec(activation_dtype="int8", activation_symmetric=True, quantize_bias=False, tables=True)
    made = quantize(model, with_scheme(base, scheme), data).model
    if scheme == "palette4":
        assert len(np.unique(made.graph.initializers["e"].const_value.numpy())) <= 16  # type: ignore[union-attr]
    else:
        stored = made.graph.initializers["e_int8"].const_value.numpy()  # type: ignore[union-attr]
        assert stored.dtype == np.int8 and stored.shape == table.shape and "e" not in made.graph.initializers
    assert sqnr_db(model, made, data) >= (14 if scheme == "palette4" else 25)
    plain = quantize(model, with_scheme(replace(base, tables=False), scheme), data).model
    assert np.array_equal(plain.graph.initializers["e"].const_value.numpy(), table)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["palette0", "palette9", "palette4v3", "palette", "palette4g0"])
def test_unknown_palettes_are_refused(name: str) -> None:
    with pytest.raises(QuantizeError, match="palette4"):
        with_scheme(QuantSpec(), name)
