"""Blocks of a quantized graph in PyTorch: they compute what ONNX Runtime computes, and training brings them nearer to the float network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx_ir.passes import PassResult

from edgewise.quantize import QuantizeError, QuantSpec, block_training, quantize
from edgewise.quantize.block_training import importance
from edgewise.quantize.layers import WEIGHTED
from edgewise.quantize.partition import by_entropy, by_parts, cheapest_borders, entropy
from edgewise.quantize.passes.prepare import prepare
from edgewise.quantize.passes.reconstruct_blocks import cut_at
from edgewise.quantize.rounded_block import RoundedBlock
from edgewise.quantize.schemes import with_scheme
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_file import to_bytes
from edgewise.runtime.onnx_runner import OnnxRunner

Make = Callable[..., Any]

RESIDUAL = """(float[1,4,8,8] x, float[8,4,3,3] w, float[8] b, float[8,8,3,3] v, float[8] c, float[8,8,3,3] u, float[8] d, float[6,8] g)
    => (float[1,6] y)
    { p = Conv<pads=[1,1,1,1]>(x, w, b)  r = Relu(p)  q = Conv<pads=[1,1,1,1]>(r, v, c)  s = Relu(q)
      t = Conv<pads=[1,1,1,1]>(s, u, d)  a = Add(t, r)  o = Relu(a)  m = GlobalAveragePool(o)  f = Flatten(m)  y = Gemm<transB=1>(f, g) }"""
MLP = """(float[1,16,32] x, float[32,64] w, float[64] b, float[64,32] v, float[32] c, float[32,8] u) => (float[1,16,8] y)
    { a = MatMul(x, w)  p = Add(a, b)  r = Tanh(p)  e = MatMul(r, v)  q = Add(e, c)  s = Sigmoid(q)  y = MatMul(s, u) }"""
SHAPES = {RESIDUAL: (1, 4, 8, 8), MLP: (1, 16, 32)}


def build(graph: Make, text: str) -> ir.Model:
    rng = np.random.default_rng(5)
    found = {}
    for entry in text[1 : text.index(")")].split(", "):
        kind, name = entry.split()
        shape = [int(dim) for dim in kind[6:-1].split(",")]
        found[name] = (rng.normal(size=shape) / np.sqrt(max(1, np.prod(shape[1:])))).astype(np.float32)
    del found["x"]
    if text == RESIDUAL:
        found["v"][:, :2] = 0
    return prepare(graph(text.replace("\n", " "), found))


def samples(dataset: Make, text: str, count: int, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return dataset([{"x": rng.normal(size=SHAPES[text]).astype(np.float32)} for _ in range(count)])


def sqnr_db(model: ir.Model, made: ir.Model, data: Any) -> float:
    want, have = ([OnnxRunner(m, optimize=False).run(sample.inputs) for sample in data] for m in (model, made))
    return min(parity.sqnr_db for parity in compare_outputs(want, have))


@pytest.fixture
def from_plain_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that something is left to gain: the closed form leaves little of a random network."""
    monkeypatch.setattr(
        "edgewise.quantize.passes.round_by_gptq.RoundByGptq.call", lambda self, model: PassResult(model, False)
    )


@pytest.mark.parametrize(("text", "scheme"), [(RESIDUAL, "w4a8"), (RESIDUAL, "w4a4"), (MLP, "w4g32"), (MLP, "w4a8")])
def test_blocks_compute_what_onnx_runtime_computes(text: str, scheme: str, graph: Make, dataset: Make) -> None:
    model, data = build(graph, text), samples(dataset, text, 8, 1)
    made = quantize(model, with_scheme(QuantSpec(), scheme), data, rounding="squant").model
    stops, trained = set[str](), set[str | None]()
    blocks = by_parts(model, [], QuantSpec())
    assert [str(block.output.name) for block in blocks] == {RESIDUAL: ["f", "y"], MLP: ["s", "y"]}[text]
    for block in blocks:
        stops |= {str(value.name) for value in block.inputs}
        cut = cut_at(made.graph, stops, str(block.output.name))
        names = [str(value.name) for value in (*cut.inputs, cut.output)]
        found = OnnxRunner(made, outputs=list(dict.fromkeys(names)), optimize=False).run(next(iter(data)).inputs)
        tensors = {name: torch.from_numpy(found[name]) for name in names[:-1]}
        np.testing.assert_allclose(RoundedBlock(cut, [])(tensors), found[names[-1]], rtol=1e-4, atol=1e-5)
        stops.add(names[-1])
        trained.update(node.name for node in cut.nodes if node.op_type in WEIGHTED)
    assert trained == {node.name for node in made.graph if node.op_type in WEIGHTED}


@pytest.mark.parametrize(("text", "scheme"), [(RESIDUAL, "w3a8"), (MLP, "w3")])
def test_training_gains_over_plain_rounding(
    text: str, scheme: str, graph: Make, dataset: Make, from_plain_rounding: None
) -> None:
    model, data, unseen = build(graph, text), samples(dataset, text, 64, 1), samples(dataset, text, 16, 2)
    spec = with_scheme(QuantSpec(), scheme)
    plain, made, again = (quantize(model, spec, data, rounding=how) for how in ("gptq", "blocks", "blocks"))
    assert made.report["reconstructed"] and not plain.report["reconstructed"]
    assert all(row["error"] <= 1 for row in made.report["reconstructed"])
    assert sqnr_db(model, made.model, unseen) > sqnr_db(model, plain.model, unseen) + 0.5
    assert to_bytes(again.model, "m") == to_bytes(made.model, "m")
    if text == RESIDUAL:
        name = next(name for name in made.model.graph.initializers if name[0] == "v" and name.endswith("_int8"))
        weights = made.model.graph.initializers[name].const_value
        assert weights is not None and not np.any(weights.numpy()[:, :2])


def test_what_outputs_depend_on_counts(graph: Make) -> None:
    """Of y = x·w·u the Hessian by x·w is u·uᵀ: entry c counts as the squares of row c of u."""
    rng = np.random.default_rng(0)
    u = (rng.normal(size=(8, 4)) * np.arange(1, 9)[:, None]).astype(np.float32)
    text = "(float[1,3,5] x, float[5,8] w, float[8,4] u) => (float[1,3,4] y) { h = MatMul(x, w)  y = MatMul(h, u) }"
    model = graph(text, {"w": rng.normal(size=(5, 8)).astype(np.float32), "u": u})
    h = next(iter(model.graph)).outputs[0]
    data = [{"x": rng.normal(size=(1, 3, 5)).astype(np.float32)} for _ in range(300)]
    wanted = np.square(u).sum(1) / np.square(u).sum(1).mean()
    found = importance(model, [h], data)[h]
    np.testing.assert_allclose(found.mean((0, 1)), wanted, rtol=0.25)


@pytest.mark.parametrize(
    ("count", "text", "reason"), [(4, MLP, "too few samples: 4"), (16, "Sin", "Sin has no gradient")]
)
def test_what_is_not_reconstructed_is_told(count: int, text: str, reason: str, graph: Make, dataset: Make) -> None:
    body = MLP.replace("Sigmoid", "Sin") if text == "Sin" else text
    model = build(graph, body)
    made = quantize(model, with_scheme(QuantSpec(), "w4"), samples(dataset, MLP, count, 1), rounding="blocks")
    assert not made.report["reconstructed"]
    assert [note for note in made.report["notes"] if "no block is reconstructed" in note and reason in note]


def test_what_held_out_samples_do_not_confirm_is_taken_back(
    graph: Make, dataset: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = dict.fromkeys(block_training._RATES, 5.0)
    monkeypatch.setattr(block_training, "_RATES", rates)
    model, data = build(graph, MLP), samples(dataset, MLP, 32, 1)
    plain, made = (quantize(model, with_scheme(QuantSpec(), "w4a8"), data, rounding=how) for how in ("gptq", "blocks"))
    assert not made.report["reconstructed"]
    assert to_bytes(plain.model, "m") == to_bytes(made.model, "m")


def test_entropy_of_values_on_a_grid() -> None:
    even = [np.arange(16, dtype=np.float32).reshape(4, 4), np.arange(16, dtype=np.float32)]
    assert entropy(even, 16) == pytest.approx(4)
    assert entropy([np.array([0, 0, 0, 7.5], np.float32)], 16) == pytest.approx(-0.75 * np.log2(0.75) + 0.5)
    assert entropy([np.full(8, 3, np.float32)], 16) == 0


@pytest.mark.parametrize(
    ("costs", "layers", "ends"),
    [
        ([3, 3, 1, 1], [1, 2, 2, 2, 1], [3, 4, 5]),
        ([3, 2.9, 3, 1], [2, 2, 2, 2, 2], [2, 4, 5]),  # at most 6 layers: the cheapest of three that are dear
        ([2, 2], [8, 8, 1], [1, 2, 3]),
        ([], [1], [1]),
    ],
)
def test_borders_lie_where_they_are_cheap(costs: list[float], layers: list[int], ends: list[int]) -> None:
    found = cheapest_borders(costs, layers, 6)
    assert found == ends


def test_blocks_by_entropy(graph: Make, dataset: Make) -> None:
    """Behind the Sign every value is −1 or 1, a single bit; behind the Tanh values spread."""
    body = MLP.replace("Sigmoid", "Sign").replace("float[32,8] u)", "float[32,32] u, float[32,8] k)")
    model = build(graph, body.replace("y = MatMul(s, u)", "h = MatMul(s, u)  t = Tanh(h)  y = MatMul(t, k)"))
    data = samples(dataset, MLP, 16, 1)
    inputs = [sample.inputs for sample in data]
    blocks = by_entropy(model, inputs, with_scheme(QuantSpec(), "w4a4"))
    assert [(str(block.output.name), block.layers) for block in blocks] == [("s", 2), ("y", 2)]
    assert [str(value.name) for block in blocks for value in block.inputs] == ["x", "s"]


def test_blocks_by_entropy_are_trained(graph: Make, dataset: Make, from_plain_rounding: None) -> None:
    model, data, unseen = build(graph, MLP), samples(dataset, MLP, 64, 1), samples(dataset, MLP, 16, 2)
    spec = with_scheme(QuantSpec(), "w3")
    plain, made = (quantize(model, spec, data, rounding="blocks", partition=how) for how in ("parts", "entropy"))
    assert [(row["block"], row["layers"]) for row in plain.report["reconstructed"]] == [("s", 2), ("y", 1)]
    assert [(row["block"], row["layers"]) for row in made.report["reconstructed"]] == [("r", 1), ("y", 2)]
    start = quantize(model, spec, data, rounding="gptq")
    assert sqnr_db(model, made.model, unseen) > sqnr_db(model, start.model, unseen) + 0.5


@pytest.mark.parametrize(
    ("partition", "rounding", "reason"),
    [("layers", "blocks", "unknown partition.*'layers'.*parts, entropy"), ("entropy", "gptq", "no blocks.*'gptq'")],
)
def test_partitions_that_cannot_be(partition: str, rounding: str, reason: str, graph: Make, dataset: Make) -> None:
    model, data = build(graph, MLP), samples(dataset, MLP, 2, 1)
    with pytest.raises(QuantizeError, match=reason):
        quantize(model, QuantSpec(), data, rounding=rounding, partition=partition)
