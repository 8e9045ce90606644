"""Normalizations that other exporters wrote out in small operations become one of Core ML's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets.base import BuildResult, Executor

BuildModel = Callable[..., tuple[Executor, BuildResult, Path]]
RNG = np.random.default_rng(5)

# PyTorch before opset 17.
_LAYER = """
mean = ReduceMean <axes=[-1]> (x)
apart = Sub (x, mean)
squares = Pow (apart, two)
variance = ReduceMean <axes=[-1]> (squares)
above = Add (variance, epsilon)
deviation = Sqrt (above)
even = Div (apart, deviation)
scaled = Mul (even, gamma)
y = Add (scaled, beta)
"""
# TensorFlow's: the factor first, and the mean taken from the shift.
_LAYER_BY_FACTOR = """
mean = ReduceMean <axes=[-1]> (x)
apart = Sub (x, mean)
squares = Mul (apart, apart)
variance = ReduceMean <axes=[-1]> (squares)
above = Add (variance, epsilon)
deviation = Sqrt (above)
inverse = Reciprocal (deviation)
factor = Mul (inverse, gamma)
scaled = Mul (x, factor)
shifted = Mul (mean, factor)
rest = Sub (beta, shifted)
y = Add (scaled, rest)
"""
_OTHER = "other = Abs (x)\nlevel = ReduceMean <axes=[-1]> (other)\n"
_INSTANCE = _LAYER.replace("[-1]", "[2, 3]")
# PyTorch's GroupNorm in every opset.
_GROUP = """
rows = Reshape (x, groups)
even = InstanceNormalization <epsilon=0.00001> (rows, ones, zeros)
back = Reshape (even, whole)
scaled = Mul (back, gamma)
y = Add (scaled, beta)
"""


def model_of(nodes: str, x: list[int], parameters: list[int]) -> onnx.ModelProto:
    declared = f"float[{', '.join(map(str, x))}]"
    head = f'<ir_version: 8, opset_import: ["" : 13]> net ({declared} x) => ({declared} y) {{{nodes}}}'
    model = onnx.parser.parse_model(head)
    constants = {
        "two": np.float32(2),
        "epsilon": np.float32(1e-5),
        "gamma": RNG.uniform(0.5, 2, parameters).astype(np.float32),
        "beta": RNG.standard_normal(parameters).astype(np.float32),
        "groups": np.array([0, 3, -1]),
        "whole": np.array(x),
        "ones": np.ones(3, np.float32),
        "zeros": np.zeros(3, np.float32),
    }
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items() if name in read
    )
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


@pytest.mark.parametrize(
    ("nodes", "x", "parameters", "operation"),
    [
        (_LAYER, [2, 5, 16], [16], "layer_norm"),
        (_LAYER_BY_FACTOR, [2, 5, 16], [16], "layer_norm"),
        (_INSTANCE, [2, 6, 5, 7], [1, 6, 1, 1], "instance_norm"),
        (_GROUP, [2, 6, 5, 7], [6, 1, 1], "instance_norm"),
    ],
    ids=["layer", "layer by a factor", "instance", "group"],
)
def test_a_normalization_is_one_operation(
    nodes: str, x: list[int], parameters: list[int], operation: str, build_model: BuildModel
) -> None:
    model = model_of(nodes, x, parameters)
    executor, result, _ = build_model(model, compute_precision="float32")
    found = Counter(layer["op"] for layer in result.layers)
    assert found[operation] == 1 and not found.keys() & {"reduce_mean", "sqrt", "rsqrt", "square", "pow"}, found
    check(model, executor, x)


def check(model: onnx.ModelProto, executor: Executor, x: list[int]) -> None:
    spread = 0.02  # so that epsilon counts
    inputs = {"x": (RNG.standard_normal(x) * spread + 0.5).astype(np.float32)}
    reference = OnnxRunner(ir.from_proto(model), optimize=False).run(inputs)
    (parity,) = compare_outputs([reference], [executor.run(inputs)])
    assert parity.sqnr_db >= 60


@pytest.mark.parametrize(
    ("nodes", "parameters"),
    [
        (_LAYER.replace("variance = ReduceMean <axes=[-1]>", "variance = ReduceMean <axes=[1]>"), [16]),
        (
            _LAYER.replace(
                "mean = ReduceMean <axes=[-1]> (x)", "turned = Neg (x)\nmean = ReduceMean <axes=[-1]> (turned)"
            ),
            [16],
        ),
        (_LAYER.replace("[-1]", "[0, 2]"), [16]),
        (_LAYER.replace("Pow (apart, two)", "Mul (apart, x)"), [16]),
        (_LAYER_BY_FACTOR.replace("Mul (mean, factor)", "Mul (x, factor)"), [16]),
        (_LAYER.replace("even = Div (apart,", f"{_OTHER}off = Sub (other, level)\neven = Div (off,"), [16]),
        (
            _LAYER_BY_FACTOR.replace("scaled = Mul (x,", f"{_OTHER}scaled = Mul (other,").replace("(mean,", "(level,"),
            [16],
        ),
        (_LAYER_BY_FACTOR, [2, 1, 1]),
        (_LAYER_BY_FACTOR, [1, 1, 1, 16]),
    ],
    ids=[
        "variance elsewhere",
        "mean of another",
        "axes apart",
        "no square",
        "no mean",
        "deviation of another",
        "factor of another",
        "parameters of another axis",
        "parameters of more axes",
    ],
)
def test_what_only_looks_like_one_stays(nodes: str, parameters: list[int], build_model: BuildModel) -> None:
    model = model_of(nodes, [2, 5, 16], parameters)
    executor, result, _ = build_model(model, compute_precision="float32")
    assert not {"layer_norm", "instance_norm"} & {layer["op"] for layer in result.layers}
    check(model, executor, [2, 5, 16])


def test_parameters_that_do_not_fit_follow_it_and_what_is_read_elsewhere_stays(build_model: BuildModel) -> None:
    model = model_of(
        _LAYER.replace("y = Add (scaled, beta)", "late = Add (scaled, beta)\ny = Mul (late, variance)"),
        [2, 5, 16],
        [2, 1, 1],
    )
    executor, result, _ = build_model(model, compute_precision="float32")
    assert "layer_norm" in {layer["op"] for layer in result.layers}
    check(model, executor, [2, 5, 16])
