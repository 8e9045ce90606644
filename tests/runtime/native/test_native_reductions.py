"""`reduce`, `pool`, `softmax` and the norms, against numpy and PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

ISAS = ("generic", "avx2", "avx512", "neon", "vec4")
QUICK = settings(max_examples=8)
REDUCTIONS: dict[str, Callable[..., Any]] = {
    "sum": np.sum,
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
    "prod": np.prod,
    "l1": lambda x, axis: np.sum(np.abs(x), axis),
    "l2": lambda x, axis: np.sqrt(np.sum(x * x, axis)),
    "sumsquare": lambda x, axis: np.sum(x * x, axis),
}


def normal(shape: Any, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", REDUCTIONS)
@QUICK
@given(data=st.data(), shape=st.lists(st.integers(1, 4) | st.integers(15, 40), max_size=4))
def test_reduce(run_op: Any, isa: str, name: str, data: Any, shape: list[int]) -> None:
    axes = data.draw(st.lists(st.sampled_from(range(len(shape))), unique=True, min_size=1)) if shape else []
    x = 1 + 0.1 * normal(shape) if name == "prod" else normal(shape)
    assume(x.size < 30000)
    want = REDUCTIONS[name](x.astype(np.float64), tuple(axes) if axes else None)
    got = run_op(
        "reduce", [x.astype(np.float32)], [("float32", np.shape(want))], {"function": name, "axes": axes}, isa=isa
    )[0]
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("dtype", ["int64", "int32"])
@pytest.mark.parametrize("axes", [[0], [1], [0, 2], [0, 1, 2], []])
def test_reduce_whole_numbers(run_op: Any, name: str, dtype: str, axes: list[int]) -> None:
    x = np.random.default_rng(0).integers(-3, 9, (3, 4, 5)).astype(dtype)
    want = np.asarray(REDUCTIONS[name](x, tuple(axes) if axes else None))
    if name == "mean":
        want = np.trunc(want)
    got = run_op("reduce", [x], [(dtype, want.shape)], {"function": name, "axes": axes})[0]
    np.testing.assert_array_equal(got, want.astype(dtype))


@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_a_sum_of_squares_that_wraps_around_has_no_root(run_op: Any, dtype: str) -> None:
    x = np.full(
        (1, 1), np.int64(3) << (15 if dtype == "int32" else 31) - 1, dtype
    )  # 9/8 of the largest number, squared
    with np.errstate(over="ignore"):
        assert (x * x).max() < 0
    np.testing.assert_array_equal(run_op("reduce", [x], [(dtype, (1,))], {"function": "l2", "axes": [1]})[0], [0])


def test_reduce_nothing(run_op: Any) -> None:
    x = np.zeros((3, 0, 2), np.float32)
    for name, value in (("sum", 0), ("prod", 1), ("max", -np.inf), ("min", np.inf)):
        got = run_op("reduce", [x], [("float32", (3, 2))], {"function": name, "axes": [1]})[0]
        np.testing.assert_array_equal(got, np.full((3, 2), value))
    assert run_op("reduce", [x], [("float32", (0, 2))], {"function": "sum", "axes": [0]})[0].size == 0


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_reduce_nothing_along_long_axes(run_op: Any, dtype: str) -> None:
    """A dim of 0 leaves the others free: 2^40 rows of nothing must not be counted one by one."""
    x = np.zeros((1 << 40, 2, 0), dtype)
    got = run_op("reduce", [x], [(dtype, (1, 2, 1))], {"function": "l1", "axes": [0, 2]})[0]
    np.testing.assert_array_equal(got, np.zeros((1, 2, 1)))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
@QUICK
@given(
    data=st.data(),
    shape=st.lists(st.integers(1, 5) | st.integers(15, 50), min_size=1, max_size=3),
    in_place=st.booleans(),
)
def test_softmax(run_op: Any, isa: str, op: str, data: Any, shape: list[int], in_place: bool) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    x = 5 * normal(shape)
    want = getattr(torch, op)(torch.from_numpy(x).double(), axis).numpy()
    got = run_op(op, [x], [("float32", shape)], {"axis": axis}, isa=isa, in_place=in_place)[0]
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-5 if op == "log_softmax" else 1e-7)


def test_softmax_of_infinities(run_op: Any) -> None:
    x = np.array([[-np.inf, 0, 1], [1e30, -1e30, 1e30]], np.float32)
    for axis in (0, 1):
        with np.errstate(all="ignore"):
            want = torch.softmax(torch.from_numpy(x).double(), axis).numpy()
        np.testing.assert_allclose(run_op("softmax", [x], [("float32", (2, 3))], {"axis": axis})[0], want, rtol=1e-6)


def norm(x: np.ndarray, axes: tuple[int, ...], epsilon: float, centred: bool = True) -> np.ndarray:
    x = x.astype(np.float64)
    mean = x.mean(axes, keepdims=True) if centred else 0
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(axes, keepdims=True) + epsilon)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("op", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("output", ["float32", "uint8", "int8"])
@QUICK
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 20), st.integers(1, 40)),
    factors=st.integers(0, 2),
    threads=st.sampled_from([1, 2]),
)
def test_norm_over_channels(
    run_op: Any, isa: str, op: str, output: str, shape: Any, factors: int, threads: int
) -> None:
    x = 3 + 2 * normal(shape)
    gamma, beta = normal(shape[1], 1), normal(shape[1], 2)
    want = norm(x, (1,), 1e-3, op == "layernorm")
    want = want * gamma[:, None] if factors > 0 else want
    want = want + beta[:, None] if factors > 1 else want
    attributes = {"axis": 1, "epsilon": 1e-3, "y_scale": 0.0217, "y_zero_point": 11}
    inputs = [x, ("const", gamma), ("const", beta)][: 1 + factors]
    result = (output, shape) if output == "float32" else (output, shape, "c4")
    got = run_op(op, inputs, [result], attributes, isa=isa, threads=threads)[0]
    if output == "float32":
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5)
    else:
        steps = np.clip(np.round(want / 0.0217) + 11, *((0, 255) if output == "uint8" else (-128, 127)))
        assert np.abs(got - steps).max() <= 1


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("op", ["layernorm", "rmsnorm"])
@QUICK
@given(shape=st.lists(st.integers(1, 4) | st.integers(15, 70), min_size=2, max_size=3), last=st.integers(1, 2))
def test_norm_over_rows(run_op: Any, isa: str, op: str, shape: list[int], last: int) -> None:
    axis = len(shape) - min(last, len(shape) - 1)
    x, gamma, beta = 3 + normal(shape), normal(shape[axis:], 1), normal(shape[axis:], 2)
    want = norm(x, tuple(range(axis, len(shape))), 1e-5, op == "layernorm") * gamma + beta
    attributes = {"axis": axis, "last": 1, "epsilon": 1e-5, "y_scale": 0.05, "y_zero_point": 3}
    got = run_op(op, [x, gamma, beta], [("float32", shape)], attributes, isa=isa)[0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    got = run_op(op, [x, gamma, beta], [("uint8", shape)], attributes, isa=isa)[0]
    assert np.abs(got - np.clip(np.round(want / 0.05) + 3, 0, 255)).max() <= 1


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_groupnorm(run_op: Any, isa: str, groups: int) -> None:
    x, gamma, beta = 1 + normal((2, 6, 5, 7)), normal(6, 1), normal(6, 2)
    tensors = [torch.from_numpy(one).double() for one in (x, gamma, beta)]
    want = torch.nn.functional.group_norm(tensors[0], groups, tensors[1], tensors[2], 1e-5).numpy()
    got = run_op("groupnorm", [x, gamma, beta], [("float32", x.shape)], {"groups": groups}, isa=isa)[0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int8"])
@pytest.mark.parametrize("function", ["max", "average"])
@QUICK
@given(data=st.data())
def test_pool(run_op: Any, isa: str, dtype: str, function: str, data: Any) -> None:
    axes = data.draw(st.integers(1, 3))
    many = [
        data.draw(st.integers(1, 5) | st.integers(30, 40)) if axes == 2 else data.draw(st.integers(1, 9))
        for _ in range(axes)
    ]
    kernel = [data.draw(st.integers(1, min(4, size))) for size in many]
    if data.draw(st.booleans()):
        kernel = many
    strides = [data.draw(st.integers(1, 3)) for _ in many]
    pads = [data.draw(st.integers(0, size // 2)) for size in kernel]
    dilation = data.draw(st.integers(1, 2)) if function == "max" else 1
    include = data.draw(st.booleans())
    assume(all(size + 2 * pad >= dilation * (k - 1) + 1 for size, pad, k in zip(many, pads, kernel, strict=True)))
    shape = (data.draw(st.integers(1, 2)), data.draw(st.integers(1, 6)), *many)
    x = normal(shape) if dtype == "float32" else np.random.default_rng(0).integers(-100, 100, shape).astype(dtype)
    wide = torch.from_numpy(x.astype(np.float64))
    if function == "max":
        want = getattr(torch, f"max_pool{axes}d")(wide, kernel, strides, pads, dilation).numpy()
    else:
        source = (wide - 7) * 0.31 if dtype != "float32" else wide
        average = getattr(torch.nn.functional, f"avg_pool{axes}d")
        want = average(source, kernel, strides, pads, count_include_pad=include).numpy()
        if dtype != "float32":
            want = np.clip(np.round(want / 0.23) + 5, *((0, 255) if dtype == "uint8" else (-128, 127)))
    attributes = {
        "function": function,
        "kernel": kernel,
        "strides": strides,
        "pads": pads * 2,
        "dilations": [dilation] * axes,
    }
    attributes |= {"include_pad": int(include), "x_scale": 0.31, "x_zero_point": 7, "y_scale": 0.23, "y_zero_point": 5}
    operand, result = (x, (dtype, want.shape)) if dtype == "float32" else (("c4", x), (dtype, want.shape, "c4"))
    got = run_op("pool", [operand], [result], attributes, isa=isa)[0]
    if function == "max":
        np.testing.assert_array_equal(got, want)
    else:
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 if dtype == "float32" else 1)


F, U = np.zeros((1, 4, 6), np.float32), np.zeros((1, 4, 6), np.uint8)
POOL = {"function": "max", "kernel": [2], "strides": [2]}


@pytest.mark.parametrize("function", ["max", "average"])
def test_windows_that_are_nearly_all_padding(run_op: Any, function: str) -> None:
    """2^28 taps, of which four lie inside: only those are looked at."""
    x = normal((1, 3, 2, 2, 1))
    attributes = {
        "function": function,
        "kernel": [1 << 14, 1 << 14, 1],
        "pads": [1 << 13, 1 << 13, 0, (1 << 13) - 2, (1 << 13) - 2, 0],
    }
    got = run_op("pool", [x], [("float32", (1, 3, 1, 1, 1))], attributes)[0]
    want = x.max((2, 3, 4), keepdims=True) if function == "max" else x.mean((2, 3, 4), keepdims=True)
    np.testing.assert_allclose(got, want, rtol=1e-6)


HOSTILE: list[tuple[str, list[Any], tuple[Any, ...], dict[str, Any]]] = [
    ("reduce", [F], ("float32", (1, 4)), {"function": "sum", "axes": [3]}),
    ("reduce", [F], ("float32", (1, 4)), {"function": "sum", "axes": [-1]}),
    ("reduce", [F], ("float32", (1, 5)), {"function": "sum", "axes": [2]}),
    ("reduce", [F], ("float32", (1, 4)), {"function": "odd", "axes": [2]}),
    ("reduce", [U], ("uint8", (1, 4)), {"function": "sum", "axes": [2]}),
    ("softmax", [F], ("float32", (1, 4, 6)), {"axis": 3}),
    ("softmax", [F], ("float32", (1, 4, 6)), {}),
    ("softmax", [F], ("float32", (1, 6, 4)), {"axis": 1}),
    ("layernorm", [F], ("float32", (1, 4, 6)), {"axis": 2}),
    ("layernorm", [F], ("float32", (1, 4, 6)), {"axis": 7, "last": 1}),
    ("layernorm", [F, np.zeros(3, np.float32)], ("float32", (1, 4, 6)), {"axis": 1}),
    ("layernorm", [F, np.zeros(4, np.int64)], ("float32", (1, 4, 6)), {"axis": 1}),
    ("layernorm", [F], ("uint8", (1, 4, 6)), {"axis": 1, "y_scale": 0.1}),
    ("layernorm", [F], ("uint8", (1, 4, 6), "c4"), {"axis": 1}),
    ("layernorm", [F], ("uint8", (1, 4, 6), "c4"), {"axis": 1, "last": 1, "y_scale": 0.1}),
    ("layernorm", [F], ("int64", (1, 4, 6)), {"axis": 1}),
    ("groupnorm", [F], ("float32", (1, 4, 6)), {"groups": 3}),
    ("groupnorm", [F], ("float32", (1, 4, 6)), {"groups": 0}),
    ("pool", [F], ("float32", (1, 4, 3)), {**POOL, "function": "odd"}),
    ("pool", [F], ("float32", (1, 4, 9)), POOL),
    ("pool", [F], ("float32", (1, 5, 3)), POOL),
    ("pool", [F], ("float32", (1, 4, 3)), {**POOL, "kernel": [0]}),
    ("pool", [F], ("float32", (1, 4, 3)), {**POOL, "kernel": [2**40]}),
    ("pool", [F], ("float32", (1, 4, 3)), {**POOL, "kernel": [2**30]}),
    ("pool", [np.zeros((1, 1, 1, 1), np.float32)], ("float32", (1, 1, 1, 1)), {"function": "average", "kernel": [2**29] * 2, "pads": [2**28] * 4}),
    ("pool", [F], ("float32", (1, 4, 3)), {**POOL, "strides": [0]}),
    ("pool", [F], ("float32", (1, 4, 3)), {**POOL, "strides": [-(2**62)]}),
    ("pool", [F], ("float32", (1, 4, 3)), {**POOL, "pads": [-1, 0]}),
    ("pool", [F], ("float32", (1, 4, 3)), {**POOL, "kernel": [2, 2]}),
    ("pool", [U], ("uint8", (1, 4, 3)), POOL),
    ("pool", [F], ("uint8", (1, 4, 3), "c4"), POOL),
    ("pool", [("c4", U)], ("uint8", (1, 4, 3), "c4"), {**POOL, "function": "average"}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "inputs", "output", "attributes"), HOSTILE)
def test_hostile_files_are_refused(
    run_op: Any, native: Any, op: str, inputs: Any, output: Any, attributes: Any
) -> None:
    with pytest.raises(native.NativeError):
        run_op(op, inputs, [output], attributes)
