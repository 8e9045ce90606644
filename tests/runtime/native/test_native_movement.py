"""Operators that move elements, against numpy, and what hostile files may ask of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

DTYPES = ("float32", "int64", "int32", "uint8", "int8", "bool")
SHAPES = st.lists(st.integers(0, 5) | st.integers(1, 20), max_size=5)
QUICK = settings(max_examples=60)


def values(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)


def check(run_op: Any, op: str, inputs: list[Any], want: np.ndarray, threads: int = 1, **attributes: Any) -> None:
    got = run_op(op, inputs, [(want.dtype.name, want.shape)], attributes, threads=threads)[0]
    np.testing.assert_array_equal(got, want)


@QUICK
@given(SHAPES, st.sampled_from(DTYPES), st.randoms(), st.sampled_from([1, 2]))
def test_transpose(run_op: Any, shape: list[int], dtype: str, random: Any, threads: int) -> None:
    perm = list(range(len(shape)))
    random.shuffle(perm)
    x = values(tuple(shape), dtype)
    check(run_op, "transpose", [x], np.ascontiguousarray(x.transpose(perm)), threads, perm=perm)


@pytest.mark.parametrize(
    "shape", [(196, 384), (384, 197), (15, 17), (16, 16), (33, 64), (3, 49, 97), (2, 3, 7, 8, 7, 32)]
)
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int64"])
def test_transpose_of_tiles(run_op: Any, shape: tuple[int, ...], dtype: str) -> None:
    x = values(shape, dtype)
    for threads in (1, 2):
        perm = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2] if len(shape) < 6 else [0, 2, 4, 1, 3, 5]
        check(run_op, "transpose", [x], np.ascontiguousarray(x.transpose(perm)), threads, perm=perm)


@QUICK
@given(st.data(), SHAPES, st.sampled_from(DTYPES))
def test_slice(run_op: Any, data: Any, shape: list[int], dtype: str) -> None:
    x = values(tuple(shape), dtype)
    starts, steps, parts = [], [], []
    for size in shape:
        step = data.draw(st.sampled_from([1, 1, 2, 3, -1, -2]))
        start = data.draw(st.integers(0, max(size - 1, 0)))
        stop = data.draw(st.integers(start, size)) if step > 0 else data.draw(st.integers(-1, start)) if size else 0
        parts.append(slice(start, None if stop < 0 else stop, step))
        starts.append(start)
        steps.append(step)
    check(run_op, "slice", [x], x[tuple(parts)].copy(), starts=starts, steps=steps)


@QUICK
@given(st.data(), st.lists(st.integers(0, 6), min_size=1, max_size=4), st.sampled_from(DTYPES))
def test_concat(run_op: Any, data: Any, shape: list[int], dtype: str) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    sizes = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    parts = [values((*shape[:axis], size, *shape[axis + 1 :]), dtype, size) for size in sizes]
    check(run_op, "concat", parts, np.concatenate(parts, axis), axis=axis)


@QUICK
@given(st.data(), SHAPES, st.sampled_from(DTYPES))
def test_expand_and_tile(run_op: Any, data: Any, shape: list[int], dtype: str) -> None:
    ones = [1 if data.draw(st.booleans()) else size for size in shape][data.draw(st.integers(0, 2)) :]
    x = values(tuple(ones), dtype)
    target = shape if len(ones) <= len(shape) else ones
    check(run_op, "expand", [x], np.broadcast_to(x, target).copy())
    repeats = [data.draw(st.integers(1, 3)) for _ in ones]
    check(run_op, "tile", [x], np.tile(x, repeats))


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_pad(run_op: Any, mode: str, dtype: str) -> None:
    x = values((2, 3, 4), dtype)
    pads = [(1, 0), (2, 2), (3, 1)] if mode == "constant" else [(1, 1), (2, 1), (3, 2)]
    extra = {"constant_values": 1} if mode == "constant" else {}
    want = np.pad(x, pads, mode, **extra)  # type: ignore[call-overload]
    value = {"value": 1.0 if dtype == "float32" else 1}
    check(run_op, "pad", [x], want, mode=mode, pads=[one[0] for one in pads] + [one[1] for one in pads], **value)


def test_pad_crops_and_rank_zero(run_op: Any) -> None:
    x = values((4, 5), "float32")
    check(run_op, "pad", [x], np.pad(x[1:, :-2], ((0, 2), (1, 0))), pads=[-1, 1, 2, -2])
    check(run_op, "pad", [np.float32(3).reshape(())], np.float32(3).reshape(()), pads=[])
    check(run_op, "pad", [np.zeros((0, 2), np.float32)], np.zeros((2, 2), np.float32), pads=[1, 0, 1, 0])


@QUICK
@given(
    st.data(),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.sampled_from(DTYPES),
    st.sampled_from(["int64", "int32"]),
)
def test_gather(run_op: Any, data: Any, shape: list[int], dtype: str, index_dtype: str) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    x = values(tuple(shape), dtype)
    size = shape[axis]
    indices = np.array(data.draw(st.lists(st.integers(-size, size - 1), max_size=5)), index_dtype)
    check(run_op, "gather", [x, indices], np.take(x, indices, axis), axis=axis)
    check(run_op, "gather", [x, np.array(size - 1, index_dtype)], np.take(x, size - 1, axis), axis=axis)
    elements = np.random.default_rng(0).integers(-size, size, shape).astype(index_dtype)
    check(
        run_op,
        "gather_elements",
        [x, elements],
        np.take_along_axis(x, elements.astype(np.int64) % size, axis),
        axis=axis,
    )


def test_wild_indices_stay_inside(run_op: Any) -> None:
    x = values((3, 4), "int64")
    indices = np.array([2**62, -(2**63), 3, -4, 2**31], np.int64)
    got = run_op("gather", [x, indices], [("int64", (5, 4))], {"axis": 0})[0]
    assert np.isin(got, x).all()
    wild = np.full((3, 4), 2**40)
    assert np.isin(run_op("gather_elements", [x, wild], [("int64", (3, 4))], {"axis": 1})[0], x).all()


REDUCTIONS = {"none": None, "add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "int64", "int32"])
def test_scatter(run_op: Any, reduction: str, dtype: str) -> None:
    x, updates = values((5, 3), dtype), values((4, 3), dtype, 1)
    indices, want = np.array([4, 0, -5, 4]), x.copy()
    function = REDUCTIONS[reduction]
    for index, update in zip(indices, updates, strict=True):
        want[index] = update if function is None else function(want[index], update)
    check(run_op, "scatter", [x, indices, updates], want, reduction=reduction)


def test_scatter_of_wild_indices_stays_inside(run_op: Any) -> None:
    x, updates = values((5, 3), "uint8"), values((3, 3), "uint8", 1)
    indices = np.array([2**62, -(2**63), -6], np.int64)
    got = run_op("scatter", [x, indices, updates], [("uint8", (5, 3))], {})[0]
    np.testing.assert_array_equal(got[1:4], x[1:4])
    np.testing.assert_array_equal(got[[0, 4]], updates[[2, 0]])


@pytest.mark.parametrize("mode", ["dcr", "crd"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_depth_to_space(run_op: Any, mode: str, dtype: str) -> None:
    x = values((2, 12, 3, 5), dtype)
    if mode == "dcr":
        want = x.reshape(2, 2, 2, 3, 3, 5).transpose(0, 3, 4, 1, 5, 2)
    else:
        want = x.reshape(2, 3, 2, 2, 3, 5).transpose(0, 1, 4, 2, 5, 3)
    want = np.ascontiguousarray(want.reshape(2, 3, 6, 10))
    check(run_op, "depth_to_space", [x], want, block=2, mode=mode)
    check(run_op, "space_to_depth", [want], x, block=2, mode=mode)


@QUICK
@given(SHAPES, st.sampled_from(DTYPES), st.randoms())
def test_where(run_op: Any, shape: list[int], dtype: str, random: Any) -> None:
    def some(seed: int, kind: str) -> np.ndarray:
        return values(tuple(1 if random.random() < 0.3 else size for size in shape), kind, seed)

    condition, a, b = some(1, "bool"), some(2, dtype), some(3, dtype)
    want = np.broadcast_to(np.where(condition, a, b), shape)
    check(run_op, "where", [condition, a, b], np.ascontiguousarray(want))


@pytest.mark.parametrize("source", DTYPES)
@pytest.mark.parametrize("target", DTYPES)
def test_cast(run_op: Any, source: str, target: str) -> None:
    x = values((3, 7), source, 1)
    if source == "float32" and target != "bool":
        x[0, :3] = [-1.7, 2.5, 0.0]
    with np.errstate(all="ignore"):
        check(
            run_op,
            "cast",
            [x],
            x.astype("int64").astype(target)
            if source == "float32" and target != "bool" and target != "float32"
            else x.astype(target),
        )


@pytest.mark.parametrize(("edge", "inside"), [("float64", "float32"), ("int16", "int32"), ("uint16", "int32")])
def test_cast_at_the_ends(run_op: Any, native: Any, edge: str, inside: str) -> None:
    x = np.array([0, 1, -1, 32767, -32768, 65535, 70000], inside)
    narrow = x.astype(edge)  # integers wrap around
    check(run_op, "cast", [x], narrow)
    check(run_op, "cast", [narrow], narrow.astype(inside))
    with pytest.raises(native.NativeError, match="cannot cast between these dtypes"):
        run_op("cast", [narrow], [("int64", x.shape)])


def test_cast_of_what_does_not_fit(run_op: Any) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1e30], np.float32)
    got = run_op("cast", [x], [("int64", (4,))])[0]
    assert got[1] == 2**63 - 1 and got[2] == -(2**63)


def test_shape_value(run_op: Any) -> None:
    check(run_op, "shape_value", [], np.array([3, -1, 7]), values=[3, -1, 7])
    check(run_op, "shape_value", [], np.array([], np.int64))


F, L, B = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.int64), np.zeros((2, 3), bool)
HOSTILE: list[tuple[str, list[Any], tuple[Any, ...], dict[str, Any]]] = [
    ("transpose", [F], ("float32", (2, 3)), {}),
    ("transpose", [F], ("float32", (2, 3)), {"perm": [0, 0]}),
    ("transpose", [F], ("float32", (2, 3)), {"perm": [0, 2**40]}),
    ("transpose", [F], ("float32", (2, 3)), {"perm": [-1, 1]}),
    ("transpose", [F], ("float32", (2, 4)), {"perm": [0, 1]}),
    ("transpose", [F], ("int32", (2, 3)), {"perm": [0, 1]}),
    ("slice", [F], ("float32", (2, 3)), {"starts": [0]}),
    ("slice", [F], ("float32", (2, 3)), {"starts": [0, 1]}),
    ("slice", [F], ("float32", (2, 3)), {"starts": [-1, 0]}),
    ("slice", [F], ("float32", (2, 3)), {"starts": [0, 0], "steps": [2, 1]}),
    ("slice", [F], ("float32", (2, 3)), {"starts": [0, 0], "steps": [1, -1]}),
    ("slice", [F], ("float32", (2, 3)), {"starts": [0, 0], "steps": [2**62, 2**63 - 1]}),
    ("slice", [F], ("float32", (6,)), {"starts": [0]}),
    ("concat", [F, F], ("float32", (2, 3)), {"axis": 0}),
    ("concat", [F], ("float32", (4, 3)), {"axis": 0}),
    ("concat", [F, F], ("float32", (4, 3)), {"axis": 7}),
    ("concat", [F, F], ("float32", (4, 3)), {}),
    ("concat", [F, L], ("float32", (4, 3)), {"axis": 0}),
    ("concat", [F, F], ("float32", (2, 6)), {"axis": 0}),
    ("expand", [F], ("float32", (2, 4)), {}),
    ("expand", [F], ("float32", (3,)), {}),
    ("tile", [F], ("float32", (2, 4)), {}),
    ("tile", [F], ("float32", (6,)), {}),
    ("tile", [np.zeros((0, 3), np.float32)], ("float32", (2, 3)), {}),
    ("pad", [F], ("float32", (3, 3)), {"pads": [0, 0, 0, 0]}),
    ("pad", [F], ("float32", (3, 3)), {"pads": [1, 0, 0]}),
    ("pad", [F], ("float32", (3, 3)), {"pads": [2**63 - 1, 0, -(2**63 - 1) + 1, 0]}),
    ("pad", [F], ("float32", (3, 3)), {"pads": [1, 0, 0, 0], "mode": "odd"}),
    ("pad", [np.zeros((0, 3), np.float32)], ("float32", (1, 3)), {"pads": [1, 0, 0, 0], "mode": "edge"}),
    ("gather", [F, L], ("float32", (2, 3)), {"axis": 0}),
    ("gather", [F, F], ("float32", (2, 3, 3)), {"axis": 0}),
    ("gather", [F, L], ("float32", (2, 3, 3)), {"axis": 2}),
    ("gather", [np.zeros((0, 3), np.float32), L], ("float32", (2, 3, 3)), {"axis": 0}),
    ("gather_elements", [F, np.zeros((3, 3), np.int64)], ("float32", (3, 3)), {"axis": 1}),
    ("gather_elements", [F, L], ("float32", (2, 3)), {"axis": 2**33}),
    ("gather_elements", [F, L], ("float32", (3, 2)), {"axis": 0}),
    ("scatter", [F, np.zeros(2, np.int64), F], ("float32", (2, 4)), {}),
    ("scatter", [F, np.zeros(3, np.int64), F], ("float32", (2, 3)), {}),
    ("scatter", [F, np.zeros(2, np.float32), F], ("float32", (2, 3)), {}),
    ("scatter", [F, np.zeros(2, np.int64), F], ("float32", (2, 3)), {"reduction": "mean"}),
    ("scatter", [np.zeros((0, 3), np.float32), np.zeros(2, np.int64), F], ("float32", (0, 3)), {}),
    ("scatter", [B, np.zeros(2, np.int64), B], ("bool", (2, 3)), {"reduction": "add"}),
    ("depth_to_space", [np.zeros((1, 4, 2, 2), np.float32)], ("float32", (1, 1, 4, 5)), {"block": 2}),
    ("depth_to_space", [np.zeros((1, 4, 2, 2), np.float32)], ("float32", (1, 1, 4, 4)), {"block": 0}),
    ("depth_to_space", [np.zeros((0, 4, 2, 2), np.float32)], ("float32", (0, 1, 4, 4)), {"block": 2**40}),
    ("where", [B, F, L], ("float32", (2, 3)), {}),
    ("where", [F, F, F], ("float32", (2, 3)), {}),
    ("where", [B, F, F], ("float32", (2, 2)), {}),
    ("where", [B, F], ("float32", (2, 3)), {}),
    ("cast", [F], ("int64", (3,)), {}),
    ("shape_value", [], ("int64", (2,)), {"values": [1]}),
    ("shape_value", [], ("float32", (1,)), {"values": [1]}),
    ("copy", [F], ("float32", (7,)), {}),
    ("copy", [F], ("int32", (2, 3)), {}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "inputs", "output", "attributes"), HOSTILE)
def test_hostile_files_are_refused(
    run_op: Any, native: Any, op: str, inputs: Any, output: Any, attributes: Any
) -> None:
    with pytest.raises(native.NativeError):
        run_op(op, inputs, [output], attributes)
