"""`resize`, `cumsum`, `argmax` and `topk` against ONNX Runtime and numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ISAS = ("generic", "avx2", "avx512", "neon", "vec4")
QUICK = settings(max_examples=25)
COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def onnx_resize(x: np.ndarray, scales: list[float], mode: str, **attributes: Any) -> np.ndarray:
    node = onnx.helper.make_node("Resize", ["x", "", "s"], ["y"], mode=mode, **attributes)
    kind = onnx.helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [onnx.helper.make_tensor_value_info("x", kind, x.shape)],
        [onnx.helper.make_tensor_value_info("y", kind, None)],
        [onnx.numpy_helper.from_array(np.array(scales, np.float32), "s")],
    )
    model = onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 19)])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})[0]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@QUICK
@given(data=st.data())
def test_resize(run_op: Any, isa: str, mode: str, data: Any) -> None:
    spatial = [data.draw(st.integers(2, 9)) for _ in range(2)]
    scales = [1.0, 1.0, *(data.draw(st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0, 0.7])) for _ in spatial)]
    coordinate = data.draw(st.sampled_from(COORDINATES))
    x = np.random.default_rng(0).normal(0, 1, (data.draw(st.integers(1, 2)), 3, *spatial)).astype(np.float32)
    extra: dict[str, Any] = {}
    if mode == "nearest":
        extra = {"nearest_mode": data.draw(st.sampled_from(NEAREST))}
    if mode == "cubic":
        extra = {
            "cubic_coeff_a": data.draw(st.sampled_from([-0.75, -0.5])),
            "exclude_outside": data.draw(st.integers(0, 1)),
        }
    want = onnx_resize(x, scales, mode, coordinate_transformation_mode=coordinate, **extra)
    attributes = {"function": mode, "coordinate": coordinate, "scales": scales, **extra}
    attributes["cubic_coeff"] = attributes.pop("cubic_coeff_a", -0.75)
    got = run_op("resize", [x], [("float32", want.shape)], attributes, isa=isa)[0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("channels", [3, 8])
def test_resize_of_bytes(run_op: Any, dtype: str, mode: str, channels: int) -> None:
    x = np.random.default_rng(0).integers(-128, 127, (2, channels, 5, 7)).astype(dtype)
    for scales in ([1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 1.5, 1.0]):
        want = onnx_resize(x.astype(np.float32), scales, mode, coordinate_transformation_mode="half_pixel")
        attributes = {"function": mode, "scales": scales}
        got = run_op("resize", [("c4", x)], [(dtype, want.shape, "c4")], attributes, threads=2)[0]
        np.testing.assert_allclose(got, np.round(want), atol=0 if mode == "nearest" else 1)


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8"])
def test_nearest_of_any_dtype_and_axis(run_op: Any, dtype: str) -> None:
    x = np.arange(24).reshape(2, 3, 4).astype(dtype)
    got = run_op(
        "resize",
        [x],
        [(dtype, (4, 3, 8))],
        {"scales": [2.0, 1.0, 2.0], "coordinate": "asymmetric", "nearest_mode": "floor"},
    )[0]
    np.testing.assert_array_equal(got, x.repeat(2, 0).repeat(2, 2))


@pytest.mark.parametrize("dtype", ["float32", "int64", "int32"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_cumsum(run_op: Any, dtype: str, axis: int) -> None:
    x = np.random.default_rng(0).integers(-5, 9, (3, 4, 5)).astype(dtype)
    np.testing.assert_array_equal(run_op("cumsum", [x], [(dtype, x.shape)], {"axis": axis})[0], x.cumsum(axis))
    back = np.flip(np.flip(x, axis).cumsum(axis), axis)
    np.testing.assert_array_equal(run_op("cumsum", [x], [(dtype, x.shape)], {"axis": axis, "reverse": 1})[0], back)
    got = run_op("cumsum", [x], [(dtype, x.shape)], {"axis": axis, "exclusive": 1, "reverse": 1})[0]
    np.testing.assert_array_equal(got, back - x)


@pytest.mark.parametrize("dtype", ["float32", "int64", "int32"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_argmax_and_topk(run_op: Any, dtype: str, axis: int) -> None:
    x = np.random.default_rng(0).integers(-5, 9, (3, 7, 5)).astype(dtype)
    shape = tuple(np.delete(x.shape, axis))
    np.testing.assert_array_equal(run_op("argmax", [x], [("int64", shape)], {"axis": axis})[0], x.argmax(axis))
    np.testing.assert_array_equal(
        run_op("argmax", [x], [("int64", shape)], {"axis": axis, "function": "min"})[0], x.argmin(axis)
    )
    last = x.shape[axis] - 1 - np.flip(x, axis).argmax(axis)
    np.testing.assert_array_equal(run_op("argmax", [x], [("int64", shape)], {"axis": axis, "last": 1})[0], last)
    for largest in (0, 1):
        order = np.argsort(-x if largest else x, axis, kind="stable").take(range(2), axis)
        outputs = [(dtype, order.shape), ("int64", order.shape)]
        values, places = run_op("topk", [x], outputs, {"axis": axis, "largest": largest})
        np.testing.assert_array_equal(places, order)
        np.testing.assert_array_equal(values, np.take_along_axis(x, order, axis))


def test_topk_with_nan(run_op: Any) -> None:
    x = np.array([np.nan, 1, np.nan, 3, -np.inf, 2] * 20, np.float32)
    values, _ = run_op("topk", [x], [("float32", (120,)), ("int64", (120,))], {"axis": 0})
    assert (values[:20] == 3).all() and np.isnan(values[-40:]).all()


F = np.zeros((1, 4, 6), np.float32)
HOSTILE: list[tuple[str, list[Any], list[tuple[Any, ...]], dict[str, Any]]] = [
    ("resize", [F], [("float32", (1, 4, 12))], {}),
    ("resize", [F], [("float32", (1, 4, 12))], {"scales": [1.0, 1.0]}),
    ("resize", [F], [("float32", (1, 4, 12))], {"scales": [1.0, 1.0, -2.0]}),
    ("resize", [F], [("float32", (1, 4, 12))], {"scales": [1.0, 1.0, float("nan")]}),
    ("resize", [F], [("float32", (1, 4, 12))], {"scales": [1.0, 1.0, 2.0], "function": "odd"}),
    ("resize", [F], [("float32", (1, 4, 12))], {"scales": [1.0, 1.0, 2.0], "coordinate": "odd"}),
    ("resize", [F[:, :, :0]], [("float32", (1, 4, 12))], {"scales": [1.0, 1.0, 2.0]}),
    ("resize", [F.astype(np.int64)], [("int64", (1, 4, 12))], {"scales": [1.0, 1.0, 2.0], "function": "linear"}),
    ("resize", [("c4", F.astype(np.uint8))], [("uint8", (1, 8, 6), "c4")], {"scales": [1.0, 2.0, 1.0]}),
    ("cumsum", [F], [("float32", (1, 4, 6))], {"axis": 3}),
    ("cumsum", [F], [("float32", (1, 4, 5))], {"axis": 2}),
    ("argmax", [F], [("int64", (1, 4, 6))], {"axis": 2}),
    ("argmax", [F], [("int64", (1, 4))], {}),
    ("argmax", [F], [("float32", (1, 4))], {"axis": 2}),
    ("argmax", [F[:, :, :0]], [("int64", (1, 4))], {"axis": 2}),
    ("topk", [F], [("float32", (1, 4, 7)), ("int64", (1, 4, 7))], {"axis": 2}),
    ("topk", [F], [("float32", (1, 4, 2)), ("int64", (1, 4, 3))], {"axis": 2}),
    ("topk", [F], [("float32", (1, 3, 2)), ("int64", (1, 3, 2))], {"axis": 2}),
    ("topk", [F], [("float32", (1, 4, 2))], {"axis": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "inputs", "outputs", "attributes"), HOSTILE)
def test_hostile_files_are_refused(
    run_op: Any, native: Any, op: str, inputs: Any, outputs: Any, attributes: Any
) -> None:
    with pytest.raises(native.NativeError):
        run_op(op, inputs, outputs, attributes)
