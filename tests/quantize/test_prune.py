"""Pruning: the zeros lie where the pattern says, the smallest weights go, and shrunken networks compute the same."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgewise.quantize import QuantizeError, prune, sparsity_of
from edgewise.runtime.onnx_runner import OnnxRunner

_SEED = 0


class Chain(nn.Module):
    """Channels that only layers read: stem, depthwise, pool, flatten, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mid = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.point, self.head = nn.Conv2d(16, 8, 1), nn.Linear(8 * 4 * 4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.point(torch.relu(self.mid(torch.relu(self.stem(x))))))
        return self.head(torch.flatten(torch.max_pool2d(y, 2), 1))


class Residual(nn.Module):
    """Channels that an addition shares."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x)
        return y + self.b(torch.relu(self.a(y)))


def exported(module: nn.Module) -> ir.Model:
    torch.manual_seed(_SEED)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    program = torch.onnx.export(module.eval(), (torch.zeros(1, 3, 8, 8),), dynamo=True, verbose=False)
    assert program is not None
    return ir.from_proto(program.model_proto)


def product(weights: np.ndarray) -> ir.Model:
    """relu(x) @ weights, so that the layer does not read the network's input itself."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape((2, weights.shape[0])))
    w = ir.Value(
        name="w",
        type=ir.TensorType(ir.DataType.FLOAT),
        shape=ir.Shape(weights.shape),
        const_value=ir.tensor(weights, name="w"),
    )
    relu = ir.node("Relu", [x], name="relu")
    matmul = ir.node("MatMul", [relu.outputs[0], w], name="fc")
    matmul.outputs[0].name, matmul.outputs[0].type = "y", ir.TensorType(ir.DataType.FLOAT)
    matmul.outputs[0].shape = ir.Shape((2, weights.shape[1]))
    graph = ir.Graph([x], matmul.outputs, nodes=[relu, matmul], initializers=[w], opset_imports={"": 18}, name="g")
    return ir.Model(graph, ir_version=10)


def weights_of(model: ir.Model, name: str = "w") -> np.ndarray:
    value = model.graph.initializers[name].const_value
    assert value is not None
    return value.numpy()


def layer(model: ir.Model, result: dict, name: str) -> np.ndarray:
    return weights_of(model, next(entry["weight"] for entry in result["layers"] if entry["name"] == name))


@settings(max_examples=40)
@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from([(4, 1), (4, 4), (1, 4), (2, 3)]), st.floats(0, 0.95))
def test_blocks_of_a_product_go_together(rows: int, columns: int, block: tuple[int, int], sparsity: float) -> None:
    inputs, outputs = block
    weights = np.random.default_rng(rows * 7 + columns).normal(size=(rows * inputs, columns * outputs))
    made = prune(product(weights.astype(np.float32)), pattern=f"block:{inputs}x{outputs}", sparsity=sparsity)
    kept = weights_of(made.model) != 0
    blocks = kept.reshape(rows, inputs, columns, outputs).transpose(0, 2, 1, 3).reshape(rows * columns, -1)
    assert np.all(blocks.all(axis=1) | ~blocks.any(axis=1))
    assert np.count_nonzero(~blocks.any(axis=1)) == round(sparsity * rows * columns)
    assert made.report["sparsity"] == pytest.approx(1 - kept.mean())


@settings(max_examples=30)
@given(st.integers(1, 5), st.integers(1, 9), st.sampled_from([(2, 4), (1, 4), (1, 2), (3, 8)]))
def test_n_of_m_keeps_the_largest_along_the_inputs(groups: int, columns: int, pattern: tuple[int, int]) -> None:
    n, m = pattern
    weights = np.random.default_rng(groups + columns).normal(size=(groups * m, columns)).astype(np.float32)
    made = prune(product(weights), pattern=f"{n}:{m}", sparsity=1 - n / m)
    kept = weights_of(made.model)
    by_group = np.abs(weights).reshape(groups, m, columns)
    smallest_kept = np.sort(by_group, axis=1)[:, m - n, :]
    expected = np.where(by_group >= smallest_kept[:, None], weights.reshape(groups, m, columns), 0)
    np.testing.assert_array_equal(kept.reshape(groups, m, columns), expected)


def test_blocks_of_a_convolution_lie_along_its_input_channels() -> None:
    model = exported(Residual())
    made = prune(model, pattern="block:4x1", sparsity=0.5)
    name = made.report["layers"][0]["name"]
    kept = layer(made.model, made.report, name) != 0
    blocks = kept.reshape(8, 2, 4, 3, 3)
    assert np.all(blocks.all(axis=2) | ~blocks.any(axis=2))
    assert kept.mean() == 0.5
    assert any("reads the network's input" in entry["reason"] for entry in made.report["refused"])


def test_unstructured_removes_the_smallest() -> None:
    weights = np.arange(1, 101, dtype=np.float32).reshape(10, 10)
    made = prune(product(weights), pattern="unstructured", sparsity=0.3)
    np.testing.assert_array_equal(weights_of(made.model), np.where(weights > 30, weights, 0))
    assert made.report["sparsity"] == pytest.approx(0.3)


def test_the_model_that_goes_in_is_left_alone() -> None:
    model = product(np.ones((4, 4), np.float32))
    prune(model, pattern="unstructured", sparsity=0.5)
    assert np.all(weights_of(model) == 1)


@pytest.mark.parametrize("seed", range(3))
def test_channels_that_are_zero_go_without_a_trace(seed: int) -> None:
    """Dead channels (weights and bias zero) are the smallest; without them the network computes the same."""
    torch.manual_seed(seed)
    module = Chain()
    dead = torch.randperm(16)[:8]
    model = exported(module)
    for name in ("stem.weight", "stem.bias", "mid.weight", "mid.bias"):
        value = model.graph.initializers[name]
        array = np.array(value.const_value.numpy())  # type: ignore[union-attr]
        array[dead.numpy()] = 0
        value.const_value = ir.tensor(array, name=name)
    head = next(str(node.name) for node in model.graph if node.op_type == "Gemm")
    point = [str(node.name) for node in model.graph if node.op_type == "Conv"][-1]
    made = prune(model, pattern="channel", sparsity=0.5, skip=[point, head])
    assert made.model.graph.initializers["stem.weight"].shape == (8, 3, 3, 3)
    assert made.model.graph.initializers["mid.weight"].shape == (8, 1, 3, 3)
    assert made.model.graph.initializers["point.weight"].shape == (8, 8, 1, 1)
    sample = {model.graph.inputs[0].name: np.random.default_rng(seed).normal(size=(1, 3, 8, 8)).astype(np.float32)}
    want, have = (next(iter(OnnxRunner(m).run(sample).values())) for m in (model, made.model))
    np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-4)


def test_channels_shrink_through_flatten() -> None:
    made = prune(exported(Chain()), pattern="channel", sparsity=0.25)
    assert made.model.graph.initializers["point.weight"].shape == (6, 12, 1, 1)
    assert made.model.graph.initializers["head.weight"].shape == (10, 6 * 16)
    shapes = {"x": np.zeros((1, 3, 8, 8), np.float32)}
    name = made.model.graph.inputs[0].name
    assert next(iter(OnnxRunner(made.model).run({name: shapes["x"]}).values())).shape == (1, 10)


def test_channels_that_an_addition_shares_stay() -> None:
    made = prune(exported(Residual()), pattern="channel", sparsity=0.5)
    assert len(made.report["layers"]) == 1  # the inner one: only a convolution reads it
    assert any("output of the network" in entry["reason"] for entry in made.report["refused"])


@pytest.mark.parametrize(
    ("pattern", "sparsity", "message"),
    [
        ("blocks", 0.5, "found 'blocks'; expected unstructured, channel, head, width, low-rank, slice, block:RxC"),
        ("4:2", 0.5, "unknown pattern"),
        ("2:4", 0.7, "found 0.7; expected 0.5, which is what 2:4 leaves out"),
        ("unstructured", 1.0, "expected a fraction from 0 to below 1"),
        ("channel", -0.1, "expected a fraction from 0 to below 1"),
        ("block:8x8", 0.5, "nothing to prune"),
    ],
)
def test_what_cannot_be_done_is_said(pattern: str, sparsity: float, message: str) -> None:
    with pytest.raises(QuantizeError) as error:
        prune(product(np.ones((4, 4), np.float32)), pattern=pattern, sparsity=sparsity)
    assert message in str(error.value)


def test_an_unknown_layer_is_refused_with_the_nearest() -> None:
    with pytest.raises(QuantizeError) as error:
        prune(product(np.ones((4, 4), np.float32)), pattern="2:4", sparsity=0.5, skip=["fcc"])
    assert "'fc'" in str(error.value)


@pytest.mark.parametrize(
    "pattern",
    [
        *("block:16x1", "block:8x8", "block:4x4", "block:4x2", "block:4x1", "block:1x4"),
        *("2:4", "1:4", "4:8", "2:8", "1:16", "unstructured"),
    ],
)
def test_the_pattern_is_found_again(pattern: str) -> None:
    group = re.fullmatch(r"(\d+):(\d+)", pattern)
    sparsity = 1 - int(group[1]) / int(group[2]) if group else 0.6
    weights = np.random.default_rng(_SEED).normal(size=(32, 24)).astype(np.float32)
    made = prune(product(weights), pattern=pattern, sparsity=sparsity)
    (entry,) = sparsity_of(made.model)
    assert entry["pattern"] == pattern
    assert entry["density"] == pytest.approx(1 - sparsity, abs=0.05)


def test_dense_weights_have_no_pattern() -> None:
    (entry,) = sparsity_of(product(np.ones((4, 4), np.float32)))
    assert (entry["density"], entry["pattern"]) == (1.0, None)


def test_joint_two_of_four_and_int8() -> None:
    """Every group of four int8 weights has at most two that are not zero, and the integers are those of the sparse weights."""
    from edgewise.quantize import QuantSpec, quantize
    from edgewise.runtime.data import random_data
    from edgewise.runtime.tensors import TensorSpec

    weights = np.random.default_rng(_SEED).normal(size=(32, 24)).astype(np.float32)
    sparse = prune(product(weights), pattern="2:4", sparsity=0.5)
    spec = QuantSpec(activation_dtype="int8", activation_symmetric=True, quantize_outputs=(), quantize_bias=False)
    made = quantize(sparse.model, spec, random_data([TensorSpec("x", "float32", (2, 32))], 8), allow_random=True)
    stored = [v.const_value.numpy() for v in made.model.graph.initializers.values() if v.dtype == ir.DataType.INT8]  # type: ignore[union-attr]
    (integers,) = [array for array in stored if array.shape == (32, 24)]
    groups = integers.T.reshape(-1, 4)
    assert np.count_nonzero(groups, axis=1).max() == 2
    assert np.all(integers[weights_of(sparse.model) == 0] == 0)
    (entry,) = sparsity_of(made.model)
    assert (entry["pattern"], entry["bits"], entry["bytes"]) == ("2:4", 8, 32 * 24)


def test_quantization_keeps_zeros() -> None:
    from edgewise.quantize import QuantSpec, quantize
    from edgewise.runtime.data import random_data
    from edgewise.runtime.tensors import TensorSpec

    weights = np.random.default_rng(_SEED).normal(size=(32, 24)).astype(np.float32)
    sparse = prune(product(weights), pattern="block:4x4", sparsity=0.5)
    data = random_data([TensorSpec("x", "float32", (2, 32))], 4)
    made = quantize(sparse.model, QuantSpec(), data, allow_random=True)
    (before,), (after,) = sparsity_of(sparse.model), sparsity_of(made.model)
    assert after["pattern"] == "block:4x4"
    assert after["density"] <= before["density"]


def looked_up(rows: int = 600, width: int = 32) -> ir.Model:
    """gather(table, ids) @ w"""
    rng = np.random.default_rng(_SEED)
    constants = {"table": rng.standard_normal((rows, width)), "w": rng.standard_normal((width, width))}
    values = {
        name: ir.Value(name=name, const_value=ir.tensor(array.astype(np.float32), name=name))
        for name, array in constants.items()
    }
    ids = ir.Value(name="ids", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape((4,)))
    found = ir.node("Gather", [values["table"], ids], name="words")
    made = ir.node("MatMul", [found.outputs[0], values["w"]], name="layer")
    made.outputs[0].name, made.outputs[0].type = "y", ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([ids], made.outputs, nodes=[found, made], initializers=values.values(), opset_imports={"": 18})
    return ir.Model(graph, ir_version=10)


def test_embeddings_lose_the_same_share_of_each_row_when_asked() -> None:
    model = looked_up()

    def table_of(model: ir.Model) -> np.ndarray:
        tensor = model.graph.initializers["table"].const_value
        assert tensor is not None
        return tensor.numpy()

    table = table_of(model)
    assert np.all(table_of(prune(model, pattern="unstructured", sparsity=0.75).model) == table)
    made = prune(model, pattern="unstructured", sparsity=0.75, tables=True)
    pruned = table_of(made.model)
    assert set(np.count_nonzero(pruned, axis=1)) == {8}
    np.testing.assert_array_equal(np.sort(np.abs(pruned))[:, -8:], np.sort(np.abs(table))[:, -8:])
    assert {row["name"]: row["density"] for row in made.report["layers"]} == {"layer": 0.25, "words": 0.25}
    assert made.report["sparsity"] == pytest.approx(0.75)
    with pytest.raises(QuantizeError, match=r"block:4x1.*tables asked for"):
        prune(model, pattern="block:4x1", sparsity=0.5, tables=True)
