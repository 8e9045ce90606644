"""`nonzero`, `nms` and `roi_align` against numpy, and dims that a run counts; hostile ones are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgewise.targets.cpu.native.plan import DType, Isa, Op, Plan, Tensor, counted, dim

ISAS = ("generic", "neon", "vec4")
X = np.random.default_rng(0).integers(-1, 2, (3, 4, 5))
BOXES = np.array([[[0, 0, 2, 2], [0, 0, 2, 1.9], [5, 5, 7, 7], [0, 0, 0, 0], [7, 7, 5, 5]]], np.float32)
SCORES = np.array([[[0.5, 0.9, 0.7, 0.8, 0.7], [0.1, 0.1, 0.1, 0.3, np.nan]]], np.float32)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["float32", "int64", "int32", "uint8", "bool"])
def test_nonzero(run_op: Any, isa: str, dtype: str) -> None:
    x = X.astype(dtype)
    places, count = run_op("nonzero", [x], [("int64", (3, 60)), ("int64", (1,))], isa=isa)
    want = np.array(np.nonzero(x))
    assert count == want.shape[1]
    np.testing.assert_array_equal(places.ravel()[: want.size], want.ravel())


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 3])
def test_nms(run_op: Any, isa: str, threads: int) -> None:
    outputs = [("int64", (8, 3)), ("int64", (1,))]
    told = {"limit": [4], "iou_threshold": 0.5}
    rows, count = run_op("nms", [BOXES, SCORES], outputs, told, isa=isa, threads=threads)
    # A box without an area covers nothing; of equal scores the first comes first; NaN is no score.
    want = [[0, 0, 1], [0, 0, 3], [0, 0, 2], [0, 1, 3], [0, 1, 0], [0, 1, 2]]
    assert rows[: int(count[0])].tolist() == want
    rows, count = run_op("nms", [BOXES, SCORES], outputs, told | {"score_threshold": 0.25}, isa=isa, threads=threads)
    assert rows[: int(count[0])].tolist() == want[:4]
    # A run's own numbers stand in the place of those.
    said = [np.array([2]), np.array([0.95], np.float32), np.array([0.2], np.float32)]
    rows, count = run_op("nms", [BOXES, SCORES, *said], outputs, told, isa=isa, threads=threads)
    assert rows[: int(count[0])].tolist() == [[0, 0, 1], [0, 0, 3], [0, 1, 3]]


@pytest.mark.parametrize("isa", ISAS)
def test_roi_align_of_whole_pixels(run_op: Any, isa: str) -> None:
    """One place in the middle of each pixel gives the pixel; outside there are zeros."""
    x = np.random.default_rng(0).normal(0, 1, (2, 3, 6, 8)).astype(np.float32)
    boxes = np.array([[0, 0, 8, 6], [-8, -6, 0, 0], [np.nan, 0, 1, 1], [-3e38, -3e38, 3e38, 3e38]], np.float32)
    told = {"ratio": 1, "half_pixel": 1}
    for images in (np.array([1, 0, 0, 0]), np.array([1, -9, 99, 0], np.int32)):
        y = run_op("roi_align", [x, boxes, images], [("float32", (4, 3, 6, 8))], told, isa=isa)[0]
        np.testing.assert_allclose(y[0], x[1], atol=1e-6)
        assert (y[1, :, :5, :7] == 0).all() and (y[2] == 0).all()
    for ratio in (0, 64):
        y = run_op("roi_align", [x, boxes, images], [("float32", (4, 3, 2, 2))], {"ratio": ratio}, isa=isa)[0]
        assert np.isfinite(y).all()


def test_a_dim_that_a_run_counts(run_plan: Any) -> None:
    """Elements that are not 0, picked and added up: nothing, some, all."""
    x = Tensor("x", DType.F32, (dim("N"),))
    places, count = Tensor("places", DType.S64, (dim(1), dim("N"))), Tensor("count", DType.S64, (dim(1),))
    found = counted(count, dim("N"))
    part = Tensor("part", DType.S64, (found,), storage=places.storage)
    picked, y = Tensor("picked", DType.F32, (found,)), Tensor("y", DType.F32, (found,))
    ops = [
        Op("nonzero", "find", [x], [places, count]),
        Op("gather", "pick", [x, part], [picked], {"axis": 0}),
        Op("binary", "add", [picked, picked], [y], {"function": "add"}),
    ]
    for values in ([0, 3, 0, 4], [0] * 4, [1, 2, 3, 4], [5]):
        array = np.array(values, np.float32)
        np.testing.assert_array_equal(run_plan(Plan(Isa.GENERIC, [x], [y], ops), [array])[0], array[array != 0] * 2)


F = np.zeros((1, 2, 4, 4), np.float32)


@pytest.mark.parametrize(
    ("op", "inputs", "outputs", "attributes"),
    [
        ("nonzero", [X], [("int64", (3, 59)), ("int64", (1,))], {}),
        ("nonzero", [X], [("int64", (3, 60)), ("int64", (2,))], {}),
        ("nonzero", [X], [("int64", (3, 60))], {}),
        ("nonzero", [X], [("float32", (3, 60)), ("int64", (1,))], {}),
        ("nms", [BOXES, SCORES], [("int64", (10, 3)), ("int64", (1,))], {"limit": [4]}),
        ("nms", [BOXES, SCORES], [("int64", (10, 3)), ("int32", (1,))], {}),
        ("nms", [BOXES, SCORES], [("int64", (8, 3)), ("int64", (1,))], {"limit": [-1]}),
        ("nms", [BOXES, SCORES, np.array([4, 4])], [("int64", (8, 3)), ("int64", (1,))], {"limit": [4]}),
        ("nms", [BOXES, SCORES, np.array([4], np.int32)], [("int64", (8, 3)), ("int64", (1,))], {"limit": [4]}),
        ("nms", [BOXES, SCORES, np.array([4]), np.array([4])], [("int64", (8, 3)), ("int64", (1,))], {"limit": [4]}),
        ("nms", [BOXES, SCORES, *[np.array([4])] * 4], [("int64", (8, 3)), ("int64", (1,))], {"limit": [4]}),
        ("nms", [BOXES[:, :4], SCORES], [("int64", (8, 3)), ("int64", (1,))], {"limit": [4]}),
        ("nms", [BOXES[..., :3], SCORES], [("int64", (10, 3)), ("int64", (1,))], {}),
        ("roi_align", [F, F[0, 0], np.zeros(3, np.int64)], [("float32", (4, 2, 2, 2))], {}),
        ("roi_align", [F, F[0, 0], np.zeros(4, np.float32)], [("float32", (4, 2, 2, 2))], {}),
        ("roi_align", [F, F[0, 0], np.zeros(4, np.int64)], [("float32", (4, 3, 2, 2))], {}),
        ("roi_align", [F, F[0, 0], np.zeros(4, np.int64)], [("float32", (4, 2, 2, 2))], {"ratio": 65}),
        ("roi_align", [F, F[0, 0], np.zeros(4, np.int64)], [("float32", (4, 2, 2, 2))], {"ratio": -1}),
        ("roi_align", [F[:, :, :0], F[0, 0], np.zeros(4, np.int64)], [("float32", (4, 2, 2, 2))], {}),
    ],
)
def test_hostile(run_op: Any, native: Any, op: str, inputs: Any, outputs: Any, attributes: dict[str, Any]) -> None:
    with pytest.raises(native.NativeError) as caught:
        run_op(op, inputs, outputs, attributes)
    assert caught.value.args[0] == 3 and op in caught.value.args[1]
