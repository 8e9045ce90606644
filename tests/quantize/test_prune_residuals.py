"""Pruned layers make good for what the tensor has lost that their outputs are added to: against numpy's least squares and PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
import torch

from edgewise.quantize import QuantSpec, prune, quantize
from edgewise.quantize.layers import describe
from edgewise.quantize.pruning.biases import added_to
from edgewise.quantize.pruning.columns import columns, output_rows
from edgewise.quantize.pruning.matrices import as_matrices
from edgewise.quantize.schemes import with_scheme
from edgewise.runtime.data import Dataset
from edgewise.runtime.onnx_runner import OnnxRunner

Graph = Callable[..., ir.Model]

STREAM = """(float[8,24] x, float[24,24] a, float[24,24] c, float[24] b) => (float[8,24] y, float[8,24] h, float[8,24] u)
    { r = Relu(x)  s = MatMul(r, a)  h = Add(s, r)  u = Relu(h)  t = MatMul(u, c)  BIAS }"""
PLAIN, BIASED = "y = Add(t, h)", "v = Add(t, b)  y = Add(h, v)"


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def stream(graph: Graph, end: str) -> ir.Model:
    text = STREAM.replace("BIAS", end)
    found = {"a": draw(24, 24) / 5, "c": draw(24, 24, seed=1) / 5, "b": draw(24, seed=2)}
    if end is PLAIN:
        text, found = text.replace(", float[24] b", ""), {name: found[name] for name in "ac"}
    return graph(text, found)


@pytest.fixture
def data(dataset: Callable[..., Dataset]) -> Dataset:
    mix = draw(24, 24, seed=3) + 2 * draw(24, 4, seed=4) @ draw(4, 24, seed=5)
    return dataset([{"x": draw(8, 24, seed=10 + i) @ mix} for i in range(40)])


def stacked(model: ir.Model, data: Dataset, name: str) -> np.ndarray:
    runner = OnnxRunner(model, outputs=[name])
    return np.concatenate([runner.run(sample.inputs)[name] for sample in data]).astype(np.float64)


def array(model: ir.Model, name: str) -> np.ndarray:
    value = model.graph.initializers[name].const_value
    assert value is not None
    return value.numpy()


def test_the_target_is_the_dense_stream_less_the_pruned_one(graph: Graph, data: Dataset) -> None:
    dense = stream(graph, PLAIN)
    made = prune(dense, pattern="block:4x1", sparsity=0.5, criterion="second_order", data=data).model
    read, want = stacked(made, data, "u"), stacked(dense, data, "y") - stacked(made, data, "h")
    ridge = 0.01 * np.square(read).sum() / 24
    for column, before, target in zip(array(made, "c").T, array(dense, "c").T, want.T, strict=True):
        kept = np.flatnonzero(column)
        gram = read[:, kept].T @ read[:, kept] + ridge * np.eye(len(kept))
        right = read[:, kept].T @ target + ridge * before[kept]
        np.testing.assert_allclose(column[kept], np.linalg.solve(gram, right), rtol=1e-3, atol=1e-4)


def test_a_bias_makes_good_for_the_mean_of_the_stream(graph: Graph, data: Dataset) -> None:
    dense = stream(graph, BIASED)
    made = prune(dense, pattern="block:4x1", sparsity=0.5, criterion="second_order", data=data).model
    have, want = (stacked(model, data, "y").mean(axis=0) for model in (made, dense))
    np.testing.assert_allclose(have, want, rtol=1e-3, atol=1e-3)
    assert np.abs(stacked(made, data, "h").mean(axis=0) - stacked(dense, data, "h").mean(axis=0)).max() > 0.05


@pytest.mark.parametrize(("groups", "stride", "rows"), [(1, 1, 1024), (2, 1, 1024), (1, 2, 1024), (2, 2, 7)])
def test_rows_of_outputs_are_those_of_the_columns(groups: int, stride: int, rows: int, graph: Graph) -> None:
    x, weights = draw(2, 4, 7, 6), draw(6, 4 // groups, 3, 3, seed=1)
    text = f"""(float[2,4,7,6] x, float[6,{4 // groups},3,3] w) => (float[2,6,?,?] y)
        {{ y = Conv <group = {groups}, strides = [{stride},{stride}], pads = [1,1,1,1]> (x, w) }}"""
    layer = describe(next(iter(graph(text, {"w": weights}).graph)))
    given = torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(weights), None, stride, 1, 1, groups)
    found = output_rows(layer, given.numpy(), x, rows)
    flat = as_matrices(layer, weights).reshape(groups, 6 // groups, -1)
    assert found is not None
    np.testing.assert_allclose(found, columns(layer, x, rows) @ flat.transpose(0, 2, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("end", "other"),
    [
        (PLAIN, "h"),
        (BIASED, "h"),
        ("z = Add(t, h)  y = Add(z, t)", None),  # two read it
        ("z = Relu(t)  y = Add(z, h)", None),
    ],
)
def test_what_a_layer_is_added_to_is_found(end: str, other: str | None, graph: Graph) -> None:
    text = STREAM.replace("BIAS", end)
    found = {"a": draw(24, 24), "c": draw(24, 24), "b": draw(24)}
    names = [name for name in found if name != "b" or end is BIASED]
    model = graph(text if end is BIASED else text.replace(", float[24] b", ""), {name: found[name] for name in names})
    value = added_to(describe([node for node in model.graph if node.op_type == "MatMul"][1]))
    assert (None if value is None else value.name) == other


def test_a_tensor_of_another_form_is_not_taken(graph: Graph, dataset: Callable[..., Dataset]) -> None:
    text = """(float[8,24] x, float[1,24] z, float[24,24] a, float[24,24] c) => (float[8,24] y)
        { r = Relu(x)  s = MatMul(r, a)  u = Relu(s)  t = MatMul(u, c)  q = Relu(z)  y = Add(t, q) }"""
    model = graph(text, {"a": draw(24, 24), "c": draw(24, 24, seed=1)})
    data = dataset([{"x": draw(8, 24, seed=i), "z": draw(1, 24, seed=i)} for i in range(40)])
    layer = describe([node for node in model.graph if node.op_type == "MatMul"][1])
    assert added_to(layer) is not None and output_rows(layer, draw(1, 24), draw(8, 24)) is None
    made = prune(model, pattern="unstructured", sparsity=0.25, criterion="second_order", data=data).model
    have, want = stacked(made, data, "y"), stacked(model, data, "y")
    assert np.square(have - want).sum() < 0.2 * np.square(want).sum()


def test_rounding_makes_good_for_the_stream_too(graph: Graph, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    dense, spec = stream(graph, PLAIN), with_scheme(QuantSpec(), "w3")
    want, noise = stacked(dense, data, "y"), []
    for ignore in (False, True):
        if ignore:
            monkeypatch.setattr("edgewise.quantize.passes.round_by_gptq.addition_behind", lambda layer: None)
        made = quantize(dense, spec, data, rounding="gptq").model
        noise.append(np.square(stacked(made, data, "y") - want).sum())
    assert noise[0] < 0.9 * noise[1]


def test_additions_of_integers_are_rounded_as_ever(graph: Graph, normal: Callable[..., Dataset]) -> None:
    """There the other tensor becomes floats only behind the layer."""
    text = """(float[1,8,6,6] x, float[8,8,3,3] w, float[8,8,3,3] v) => (float[1,8,6,6] y)
        { a = Conv <pads = [1,1,1,1]> (x, w)  r = Relu(a)  b = Conv <pads = [1,1,1,1]> (r, v)  s = Add(b, r)  y = Relu(s) }"""
    model = graph(text, {"w": draw(8, 8, 3, 3), "v": draw(8, 8, 3, 3, seed=1)})
    made = quantize(model, with_scheme(QuantSpec(), "w4a8"), normal(32, (1, 8, 6, 6)), rounding="gptq")
    assert "Conv_2" in {row["layer"] for row in made.report["rounded"]}
