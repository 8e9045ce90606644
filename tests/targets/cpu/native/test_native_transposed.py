"""ConvTranspose as convolutions, in float and in 8 bits, beside ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from edgewise.targets.cpu.native.compile import NotTakenError, compile_model
from edgewise.targets.cpu.native.plan import Isa

pytestmark = pytest.mark.usefixtures("libedgewise")


def out_sizes(size: tuple[int, int], how: dict[str, Any]) -> list[int]:
    """By ONNX's formula."""
    strides, dilations, pads = how.get("strides", [1, 1]), how.get("dilations", [1, 1]), how.get("pads", [0] * 4)
    extra, kernel = how.get("output_padding", [0, 0]), how["kernel_shape"]
    return [
        strides[i] * (size[i] - 1) + extra[i] + dilations[i] * (kernel[i] - 1) + 1 - pads[i] - pads[2 + i]
        for i in range(2)
    ]


def float_net(
    g: Any, how: dict[str, Any], *, after: bool, size: tuple[int, int] = (5, 6), channels: tuple[int, int] = (6, 8)
) -> ir.Model:
    """One ConvTranspose of two spatial axes, alone or with a Relu, an addition and a reshape behind it."""
    inputs, outputs = channels
    made = out_sizes(size, how)
    dims = [2, outputs, *made]
    weights = g.weights("w", inputs, outputs // how.get("group", 1), *how["kernel_shape"])
    x = g.add("ConvTranspose", ["x", weights, g.weights("b", outputs)], "t", **how)
    if after:
        x = g.add("Relu", [x], "r")
        x = g.add("Add", [x, g.weights("s", *dims)], "a")
        dims = [2, outputs, made[0] * made[1]]
        g.add("Reshape", [x, g.constant("shape", np.int64(dims))], "y")
    else:
        g.add("Identity", [x], "y")
    return g.model({"x": [2, inputs, *size]}, {"y": dims})


CASES = [
    {"kernel_shape": [2, 2], "strides": [2, 2]},
    {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    {"kernel_shape": [3, 5], "strides": [1, 3], "pads": [2, 0, 0, 4]},
    {"kernel_shape": [3, 2], "strides": [3, 2], "dilations": [2, 3], "group": 2},
    {"kernel_shape": [1, 1], "strides": [2, 3], "output_padding": [1, 2]},
    {"kernel_shape": [3, 3]},
]


@pytest.mark.parametrize("how", CASES)
@pytest.mark.parametrize("after", [False, True])
def test_float(
    how: dict[str, Any], after: bool, graph_maker: Any, sample: Any, run_native: Any, run_onnx: Any, worst_db: Any
) -> None:
    model = float_net(graph_maker(1), how, after=after)
    inputs = sample(model)
    assert worst_db(run_onnx(model, inputs), run_native(model, inputs)) > 110


@settings(max_examples=40)
@given(data=st.data())
def test_drawn(data: Any, graph_maker: Any, sample: Any, run_native: Any, run_onnx: Any, worst_db: Any) -> None:
    pair = lambda low, high: [data.draw(st.integers(low, high)) for _ in range(2)]  # noqa: E731
    group = data.draw(st.integers(1, 3))
    strides = pair(1, 3)
    how = {
        "kernel_shape": pair(1, 4), "strides": strides, "dilations": pair(1, 2), "pads": pair(0, 3) + pair(0, 3), "group": group,
        "output_padding": [data.draw(st.integers(0, stride - 1)) for stride in strides],
    }  # fmt: skip
    channels = tuple(group * one for one in pair(1, 5))
    size = tuple(pair(1, 7))
    assume(min(out_sizes(size, how)) > 0)
    model = float_net(graph_maker(1), how, after=data.draw(st.booleans()), size=size, channels=channels)
    inputs = sample(model)
    wanted, found = run_onnx(model, inputs)[0], run_native(model, inputs)[0]
    assert wanted.shape == found.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def quantized_net(g: Any, *, per_channel: bool, group: int = 1, outputs: int = 8) -> ir.Model:
    """Q and DQ around a ConvTranspose, its weights in int8."""
    random = np.random.default_rng(3)
    inputs = 8
    g.constant("xs", np.float32(0.02)), g.constant("xz", np.uint8(120))
    g.constant("ys", np.float32(0.05)), g.constant("yz", np.uint8(0))
    scales = random.uniform(0.005, 0.02, outputs // group).astype(np.float32) if per_channel else np.float32(0.01)
    g.constant("ws", scales), g.constant("wz", np.zeros(np.shape(scales), np.int8))
    g.constant("w", random.integers(-127, 128, (inputs, outputs // group, 4, 4)).astype(np.int8))
    x = g.add("DequantizeLinear", [g.add("QuantizeLinear", ["x", "xs", "xz"], "xq"), "xs", "xz"], "xd")
    w = g.add("DequantizeLinear", ["w", "ws", "wz"], "wd", axis=1)
    how = {"strides": [2, 2], "pads": [1, 1, 1, 1], "group": group}
    x = g.add("ConvTranspose", [x, w, g.weights("b", outputs)], "t", **how)
    x = g.add("Relu", [x], "r")
    g.add("DequantizeLinear", [g.add("QuantizeLinear", [x, "ys", "yz"], "yq"), "ys", "yz"], "y")
    return g.model({"x": [1, inputs, 5, 7]}, {"y": [1, outputs, 10, 14]})


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("group", "outputs"), [(1, 8), (2, 8), (1, 6)])
def test_int8(
    per_channel: bool, group: int, outputs: int, graph_maker: Any, sample: Any, run_native: Any, run_onnx: Any
) -> None:
    model = quantized_net(graph_maker(2), per_channel=per_channel, group=group, outputs=outputs)
    layers = [op for op in compile_model(model, Isa.AVX2).plan.ops if op.op in ("conv", "depthwise")]
    assert len(layers) == 1 and layers[0].inputs[0].dtype.name == "U8"
    inputs = sample(model)
    steps = np.abs(run_onnx(model, inputs)[0] - run_native(model, inputs)[0]) / 0.05
    assert steps.max() < 1.01 and np.mean(steps > 0.5) < 1e-2


@pytest.mark.parametrize(
    ("how", "sizes"),
    [
        ({"auto_pad": "SAME_UPPER", "strides": [2, 2]}, [10, "w"]),  # whatever the width
        ({"auto_pad": "SAME_LOWER", "strides": [1, 2], "kernel_shape": [2, 3]}, [5, "w"]),
        ({"auto_pad": "VALID", "strides": [2, 2]}, [11, "w"]),
        ({"output_shape": [9, 12], "strides": [2, 2]}, [9, 12]),
        ({"output_shape": [8, 12], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, [8, 12]),
        ({"output_shape": [12, 11], "strides": [2, 2]}, [12, 11]),  # more than its parts reach
    ],
)
def test_pads_that_are_worked_out(
    how: dict[str, Any], sizes: list[Any], graph_maker: Any, run_native: Any, run_onnx: Any, worst_db: Any
) -> None:
    g, kernel = graph_maker(3), how.get("kernel_shape", [3, 3])
    g.add("ConvTranspose", ["x", g.weights("w", 4, 3, *kernel)], "y", **how)
    wide = "v" if sizes[1] == "w" else 5
    model = g.model({"x": [1, 4, 5, wide]}, {"y": [1, 3, *sizes]})
    inputs = {"x": np.random.default_rng(0).standard_normal((1, 4, 5, 5)).astype(np.float32)}
    assert worst_db(run_onnx(model, inputs), run_native(model, inputs)) > 110


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"output_shape": [9, 9], "strides": [2, 2]}, "axis 2 depends on the inputs' shapes"),
        ({"auto_pad": "SAME_UPPER", "strides": [4, 4]}, "shorter than its stride"),
    ],
)
def test_pads_that_cannot_be_worked_out_are_refused(how: dict[str, Any], says: str, graph_maker: Any) -> None:
    g = graph_maker()
    g.add("ConvTranspose", ["x", g.weights("w", 4, 4, 3, 3)], "y", **how)
    with pytest.raises(NotTakenError, match=says):
        compile_model(g.model({"x": [1, 4, "h", "w"]}, {"y": [1, 4, "a", "b"]}), Isa.AVX2)


def test_cumsum_and_topk(graph_maker: Any, sample: Any, run_native: Any, run_onnx: Any, worst_db: Any) -> None:
    g = graph_maker()
    axis, count = g.constant("axis", np.int64(-1)), g.constant("k", np.int64([3]))
    x = g.add("CumSum", ["x", axis], "c", exclusive=1, reverse=1)
    g.nodes.append(_topk([x, count]))
    g.add("Cast", ["places"], "p", to=TensorProto.FLOAT)
    g.add("Add", ["p", "values"], "y")
    model = g.model({"x": ["n", 5, 9]}, {"y": ["n", 3, 9]})
    inputs = sample(model)
    assert worst_db(run_onnx(model, inputs), run_native(model, inputs)) > 110


def _topk(inputs: list[str]) -> Any:
    from onnx import helper

    return helper.make_node("TopK", inputs, ["values", "places"], axis=1, largest=0)


def test_an_old_opset_is_converted(
    graph_maker: Any, sample: Any, run_native: Any, run_onnx: Any, worst_db: Any
) -> None:
    """In opset 11 Softmax is over all axes from the first one on, and Squeeze has its axes as an attribute."""
    g = graph_maker()
    x = g.add("Softmax", ["x"], "s", axis=1)
    g.add("Squeeze", [x], "y", axes=[1])
    model = g.model({"x": [3, 1, 4, 5]}, {"y": [3, 4, 5]}, opset=11)
    inputs = sample(model)
    assert worst_db(run_onnx(model, inputs), run_native(model, inputs)) > 110
