"""Activations move before joins and moves, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgewise.quantize import QuantSpec, quantize
from edgewise.quantize.passes.hoist_activations import HoistActivations
from edgewise.quantize.passes.prepare import prepare
from edgewise.runtime.onnx_runner import OnnxRunner

Make = Callable[..., Any]

JOINED = """(float[1,3,6,6] x, float[4,3,1,1] w, float[2,3,1,1] u) => (float[1,6,6,6] y)
    { a = Conv(x, w)  b = Conv(x, u)  j = Concat<axis=1>(a, b)  y = Relu(j) }"""
POOLED = """(float[1,3,6,6] x, float[4,3,1,1] w, float lo, float hi) => (float[1,4,3,3] y)
    { a = Conv(x, w)  p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)  y = Clip(p, lo, hi) }"""
READ_TWICE = """(float[1,3,6,6] x, float[4,3,1,1] w) => (float[1,4,3,3] y)
    { a = Conv(x, w)  p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)  r = Relu(p)  y = Add(r, p) }"""
NO_LAYER = """(float[1,3,6,6] x, float[4,3,1,1] w) => (float[1,7,6,6] y)
    { a = Conv(x, w)  j = Concat<axis=1>(a, x)  y = Relu(j) }"""


def model_of(graph: Make, text: str) -> Any:
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 3, 1, 1), "u": (2, 3, 1, 1)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items() if f" {name}" in text}
    if "float lo" in text:
        arrays |= {"lo": np.array(0, np.float32), "hi": np.array(1, np.float32)}
    return graph(text, arrays)


def order(model: Any) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize(
    ("text", "expected"),
    [(JOINED, ["Conv", "Conv", "Relu", "Relu", "Concat"]), (POOLED, ["Conv", "Clip", "MaxPool"])],
)
def test_an_activation_moves_behind_the_layers(text: str, expected: list[str], graph: Make, normal: Make) -> None:
    model = prepare(model_of(graph, text))
    x = next(iter(normal(1, (1, 3, 6, 6)))).inputs
    before = OnnxRunner(model).run(x)
    result = HoistActivations(QuantSpec())(model)
    assert result.modified and order(result.model) == expected
    after = OnnxRunner(result.model).run(x)
    assert list(after) == ["y"]
    np.testing.assert_array_equal(after["y"], before["y"])


@pytest.mark.parametrize("text", [READ_TWICE, NO_LAYER])
def test_it_stays_where_others_read_the_tensor_or_no_layer_made_it(text: str, graph: Make) -> None:
    model = prepare(model_of(graph, text))
    expected = order(model)
    result = HoistActivations(QuantSpec())(model)
    assert not result.modified and order(result.model) == expected


def test_not_for_a_target_that_merges_no_activation(graph: Make) -> None:
    assert not HoistActivations(QuantSpec(fused_activations=()))(prepare(model_of(graph, JOINED))).modified


def test_no_integers_are_spent_on_what_the_activation_removes(graph: Make, normal: Make) -> None:
    made = quantize(model_of(graph, JOINED), QuantSpec(), normal(4, (1, 3, 6, 6)))
    relus = [node for node in made.model.graph if node.op_type == "Relu"]
    zero_points = [use.node.inputs[2].const_value.numpy() for relu in relus for use in relu.outputs[0].uses()]
    assert len(zero_points) == 2 and not any(zero_points)
