"""Operators on shapes and attributes that hypothesis makes, many in one network: what the hand-made cases forgot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgewise.runtime.onnx_runner import OnnxRunner

Case = tuple[str, list[Any], dict[str, Any]]
DRAWN = settings(max_examples=5, derandomize=True)
pytestmark = pytest.mark.slow


def spec(shape: list[int] | tuple[int, ...], kind: str = "f") -> str:
    return f"{kind}:{','.join(map(str, shape))}"


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def each(count: int, low: int, high: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(low, high), min_size=count, max_size=count)


@st.composite
def convolution(draw: st.DrawFn) -> Case:
    axes, groups, each_in, each_out = (draw(st.integers(1, 3)) for _ in range(4))
    kernel, strides, dilations = draw(each(axes, 1, 3)), draw(each(axes, 1, 3)), draw(each(axes, 1, 2))
    room = draw(each(axes, 0, 5))
    sizes = [(k - 1) * d + 1 + more for k, d, more in zip(kernel, dilations, room, strict=True)]
    attributes: dict[str, Any] = {"strides": strides, "dilations": dilations, "group": groups}
    if draw(st.booleans()):
        attributes["pads"] = draw(each(2 * axes, 0, 2))
    else:
        attributes["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))
        attributes["dilations"] = [1] * axes  # ONNX Runtime refuses SAME with dilations
    weight = noise(groups * each_out, each_in, *kernel)
    return "Conv", [spec([draw(st.integers(1, 2)), groups * each_in, *sizes]), weight], attributes


@st.composite
def transposed(draw: st.DrawFn) -> Case:
    axes, groups = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kernel, strides = draw(each(axes, 1, 4)), draw(each(axes, 1, 3))
    pads = [draw(st.integers(0, (k - 1) // 2)) for k in kernel]
    extra = [draw(st.integers(0, s - 1)) for s in strides]
    attributes = {"strides": strides, "pads": pads + pads, "output_padding": extra, "group": groups}
    sizes = draw(each(axes, 2, 5))
    return (
        "ConvTranspose",
        [spec([1, 2 * groups, *sizes]), noise(2 * groups, 3, *kernel), noise(3 * groups)],
        attributes,
    )


@st.composite
def pool(draw: st.DrawFn) -> Case:
    op, axes = draw(st.sampled_from(["MaxPool", "AveragePool"])), draw(st.integers(1, 3))
    kernel, strides = draw(each(axes, 2, 4)), draw(each(axes, 1, 3))
    pads = [draw(st.integers(0, (k - 1) // 2)) for k in kernel * 2]
    sizes = [k + draw(st.integers(0, 6)) for k in kernel]
    attributes = {"kernel_shape": kernel, "strides": strides, "pads": pads, "ceil_mode": draw(st.integers(0, 1))}
    if op == "AveragePool":
        attributes["count_include_pad"] = draw(st.integers(0, 1))
    return op, [spec([1, 2, *sizes])], attributes


@st.composite
def cut(draw: st.DrawFn) -> Case:
    shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    axes = draw(st.permutations(range(len(shape))))[: draw(st.integers(1, len(shape)))]
    bounds = []
    for axis in axes:
        start, end = (draw(st.integers(-shape[axis] - 2, shape[axis] + 2)) for _ in range(2))
        step = draw(st.sampled_from([-3, -2, -1, 1, 2, 3]))
        end = draw(st.sampled_from([end, 2**63 - 1, -(2**63)]))
        if len(range(*slice_of(start, end, step).indices(shape[axis]))) == 0:
            start, end, step = 0, 1, 1
        bounds.append((start, end, step))
    columns = [np.array(column, np.int64) for column in zip(*bounds, strict=True)]
    return "Slice", [spec(shape), columns[0], columns[1], np.array(axes, np.int64), columns[2]], {}


def slice_of(start: int, end: int, step: int) -> slice:
    """ONNX's end of -2⁶³ on the way back is Python's None."""
    return slice(start, None if step < 0 and end < -1000 else end, step)


@st.composite
def resized(draw: st.DrawFn) -> Case:
    shape = [1, 2, *draw(each(draw(st.integers(1, 2)), 1, 7))]
    mode = draw(st.sampled_from(["nearest", "linear", "cubic"] if len(shape) == 4 else ["nearest", "linear"]))
    attributes: dict[str, Any] = {
        "mode": mode,
        "coordinate_transformation_mode": draw(
            st.sampled_from(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
        ),
    }
    if mode == "nearest":
        attributes["nearest_mode"] = draw(st.sampled_from(["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]))
    sizes = np.array([1, 2, *draw(each(len(shape) - 2, 1, 9))], np.int64)
    return "Resize", [spec(shape), None, None, sizes], attributes


@st.composite
def padded(draw: st.DrawFn) -> Case:
    shape = draw(st.lists(st.integers(2, 5), min_size=1, max_size=4))
    mode = draw(st.sampled_from(["constant", "reflect", "edge", "wrap"]))
    pads = [draw(st.integers(0, dim - 1)) for dim in shape * 2]
    return "Pad", [spec(shape, draw(st.sampled_from("fi"))), np.array(pads, np.int64)], {"mode": mode}


@st.composite
def reduced(draw: st.DrawFn) -> Case:
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    axes = draw(st.permutations(range(-len(shape), 0)))[: draw(st.integers(1, len(shape)))]
    op = draw(st.sampled_from(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2", "ReduceLogSumExp"]))
    return op, [spec(shape), np.array(axes, np.int64)], {"keepdims": draw(st.integers(0, 1))}


@st.composite
def gathered(draw: st.DrawFn) -> Case:
    shape = draw(st.lists(st.integers(2, 5), min_size=1, max_size=4))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    places = draw(st.lists(st.integers(1, 3), min_size=0, max_size=6 - len(shape)))[: 6 - len(shape)]
    low, high = -shape[axis], shape[axis]
    fixed = np.random.default_rng(len(shape)).integers(low, high, places)
    return "Gather", [spec(shape), fixed if draw(st.booleans()) else spec(places, "k")], {"axis": axis}


@st.composite
def product(draw: st.DrawFn) -> Case:
    lead = draw(st.lists(st.integers(1, 3), max_size=2))
    rows, inner, columns = (draw(st.integers(1, 5)) for _ in range(3))
    left = [draw(st.sampled_from([1, dim])) for dim in lead]
    right = [*[draw(st.sampled_from([1, dim])) for dim in lead][draw(st.integers(0, len(lead))) :], inner, columns]
    return "MatMul", [spec([*left, rows, inner]), spec(right) if draw(st.booleans()) else noise(*right)], {}


@st.composite
def moved(draw: st.DrawFn) -> Case:
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    return "Transpose", [spec(shape, draw(st.sampled_from("fib")))], {"perm": draw(st.permutations(range(len(shape))))}


FAMILIES = [convolution, transposed, pool, cut, resized, padded, reduced, gathered, product, moved]


@DRAWN
@given(st.tuples(*(st.lists(family(), min_size=6, max_size=6) for family in FAMILIES)))
def test_drawn_shapes_match_onnx_runtime(build_cases: Callable[..., Any], drawn: tuple[list[Case], ...]) -> None:
    cases = [case for family in drawn for case in family]
    built = build_cases(cases, compute_precision="float32")
    found = {f"{case[0]}_{index}": (built.sqnr_db(f"{case[0]}_{index}"), case) for index, case in enumerate(cases)}
    assert {label: entry for label, entry in found.items() if entry[0] < 90} == {}


def test_windows_that_follow_the_size_take_images_of_any_size(build_model: Callable[..., Any]) -> None:
    weight = np.random.default_rng(1).standard_normal((4, 3, 3, 4)).astype(np.float32)
    nodes = [
        helper.make_node("MaxPool", ["x"], ["most"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        helper.make_node(
            "AveragePool", ["x"], ["mean"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, ceil_mode=1
        ),
        helper.make_node("Conv", ["x", "w"], ["upper"], strides=[2, 3], auto_pad="SAME_UPPER"),
        helper.make_node("Conv", ["x", "w"], ["lower"], strides=[2, 1], auto_pad="SAME_LOWER"),
        helper.make_node("MaxPool", ["x"], ["far"], kernel_shape=[2, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
        helper.make_node("AveragePool", ["x"], ["all"], kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER"),
        helper.make_node(
            "AveragePool",
            ["x"],
            ["padded"],
            kernel_shape=[3, 2],
            strides=[2, 2],
            auto_pad="SAME_UPPER",
            count_include_pad=1,
        ),
    ]
    image = [1, 3, "height", "width"]
    names = [node.output[0] for node in nodes]
    graph = helper.make_graph(
        nodes, "pools", [helper.make_tensor_value_info("x", TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))
    dims = {side: {"min": 7, "max": 32, "default": 8} for side in ("height", "width")}
    executor, _, _ = build_model(model, dims=dims, compute_precision="float32")
    for height, width in ((8, 8), (7, 12), (13, 9)):
        x = {"x": np.random.default_rng(0).standard_normal((1, 3, height, width)).astype(np.float32)}
        want, found = OnnxRunner(model, optimize=False).run(x), executor.run(x)
        for name in names:
            np.testing.assert_allclose(found[name], want[name], rtol=1e-5, atol=1e-6)
