"""`binary`: every function and dtype with numpy's broadcasting, and arithmetic on 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ISAS = ("generic", "avx2", "avx512", "neon", "vec4")
QUICK = settings(max_examples=40)
ARITHMETIC: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "min": np.minimum,
    "max": np.maximum,
    "pow": np.power,
    "mod": np.mod,
}
COMPARISONS: dict[str, Callable[..., np.ndarray]] = {
    "equal": np.equal,
    "less": np.less,
    "greater": np.greater,
    "lessequal": np.less_equal,
    "greaterequal": np.greater_equal,
}
SHAPES = st.lists(st.integers(0, 3) | st.integers(1, 19), max_size=4)


def pair(shape: list[int], random: Any, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(len(shape))
    parts = []
    for _ in range(2):
        dims = [1 if random.random() < 0.3 else size for size in shape][random.choice([0, 0, 1]) :]
        parts.append((generator.integers(1, 9, dims) * (0.7 if dtype == "float32" else 1)).astype(dtype))
    return parts[0], parts[1]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ARITHMETIC)
@settings(max_examples=15)
@given(shape=SHAPES, random=st.randoms())
def test_float_arithmetic(run_op: Any, name: str, isa: str, shape: list[int], random: Any) -> None:
    a, b = pair(shape, random, "float32")
    want = np.broadcast_to(ARITHMETIC[name](a, b), np.broadcast_shapes(a.shape, b.shape))
    got = run_op("binary", [a, b], [("float32", want.shape)], {"function": name}, isa=isa)[0]
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-5 if name == "mod" else 0)


@pytest.mark.parametrize("dtype", ["int64", "int32"])
@pytest.mark.parametrize("name", ARITHMETIC)
def test_whole_arithmetic(run_op: Any, name: str, dtype: str) -> None:
    a, b = np.arange(-10, 11, dtype=dtype)[:, None], np.array([-3, 2, 7], dtype)
    if name == "pow":
        b = np.array([0, 2, 5], dtype)
    want = np.trunc(a / b).astype(dtype) if name == "div" else ARITHMETIC[name](a, b)
    np.testing.assert_array_equal(run_op("binary", [a, b], [(dtype, want.shape)], {"function": name})[0], want)
    if name == "mod":
        fmod = run_op("binary", [a, b], [(dtype, want.shape)], {"function": name, "fmod": 1})[0]
        np.testing.assert_array_equal(fmod, np.fmod(a, b))


@pytest.mark.parametrize("name", ["div", "mod"])
def test_nothing_stops_a_division(run_op: Any, name: str) -> None:
    for dtype in ("int64", "int32"):
        least = np.iinfo(dtype).min
        a, b = np.array([5, least, least], dtype), np.array([0, -1, 0], dtype)
        run_op("binary", [a, b], [(dtype, (3,))], {"function": name})
        run_op("binary", [a, b], [(dtype, (3,))], {"function": name, "fmod": 1})


@pytest.mark.parametrize("dtype", ["float32", "int64", "int32", "bool"])
@pytest.mark.parametrize("name", [*COMPARISONS, "and", "or", "xor"])
def test_to_bool(run_op: Any, native: Any, name: str, dtype: str) -> None:
    a, b = np.arange(4).astype(dtype)[:, None], np.arange(3).astype(dtype)
    logical = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}
    if name in logical and dtype != "bool":
        with pytest.raises(native.NativeError):
            run_op("binary", [a, b], [("bool", (4, 3))], {"function": name})
        return
    want = {**COMPARISONS, **logical}[name](a, b)
    np.testing.assert_array_equal(run_op("binary", [a, b], [("bool", (4, 3))], {"function": name})[0], want)


def test_activation_in_place_and_threads(run_op: Any) -> None:
    a = np.linspace(-3, 3, 60_000, dtype=np.float32).reshape(3, 20_000)
    b = np.array([[0.5], [-0.5], [0.0]], np.float32)
    attributes = {"function": "add", "activation": "clip", "activation_alpha": -1.0, "activation_beta": 2.0}
    for threads in (1, 2):
        got = run_op("binary", [a, b], [("float32", a.shape)], attributes, threads=threads, in_place=True)[0]
        np.testing.assert_array_equal(got, np.clip(a + b, -1, 2))


BYTES = {
    "a_scale": 0.0513,
    "a_zero_point": 3,
    "b_scale": 0.0217,
    "b_zero_point": 100,
    "y_scale": 0.0637,
    "y_zero_point": 20,
}
LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}


def real(x: np.ndarray, prefix: str) -> np.ndarray:
    if x.dtype == np.float32:
        return x
    return (x.astype(np.float32) - BYTES[prefix + "_zero_point"]) * np.float32(BYTES[prefix + "_scale"])


def draw(shape: tuple[int, ...], dtype: str, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    if dtype == "float32":
        return generator.normal(0, 3, shape).astype(np.float32)
    return generator.integers(*LIMITS[dtype], shape, endpoint=True).astype(dtype)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kinds", ["uuu", "sss", "usu", "ufu", "fuu", "uuf", "fff->u", "uff"])
@QUICK
@given(data=st.data())
def test_bytes(run_op: Any, isa: str, kinds: str, data: Any) -> None:
    a_kind, b_kind, y_kind = [{"u": "uint8", "s": "int8", "f": "float32"}[kind] for kind in kinds.replace("f->", "")]
    shape = (
        data.draw(st.integers(1, 2)),
        data.draw(st.integers(1, 9)),
        *data.draw(st.sampled_from([(), (7,), (5, 13), (300,)])),
    )
    spatial = (1,) * (len(shape) - 2)
    b_shape = data.draw(
        st.sampled_from([shape, (1, *shape[1:]), (*shape[:2], *spatial), (1, shape[1], *spatial), (1, 1, *spatial)])
    )
    name = data.draw(st.sampled_from(["add", "mul", "sub", "max"]))
    layout = data.draw(st.sampled_from(["c4", ""]))
    swapped = data.draw(st.booleans())
    a, b = draw(shape if not swapped else b_shape, a_kind, 1), draw(b_shape if not swapped else shape, b_kind, 2)

    def operand(x: np.ndarray) -> Any:
        return ("c4", x) if layout and x.dtype != np.float32 else x

    output = (y_kind, shape, "c4") if layout and y_kind != "float32" else (y_kind, shape)
    activation = data.draw(st.sampled_from(["", "relu"]))
    got = run_op(
        "binary", [operand(a), operand(b)], [output], {"function": name, "activation": activation, **BYTES}, isa=isa
    )[0]
    want = np.broadcast_to({**ARITHMETIC}[name](real(a, "a"), real(b, "b")), shape)
    want = np.maximum(want, 0) if activation else want
    if y_kind == "float32":
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
        return
    steps = np.clip(np.round(want / np.float32(BYTES["y_scale"])) + BYTES["y_zero_point"], *LIMITS[y_kind])
    off = np.abs(got.astype(int) - steps)
    assert off.max() <= 1 and np.sum(off) <= 1 + off.size * 1e-3


def test_scalar_operands_of_bytes(run_op: Any) -> None:
    a, b = draw((1, 8, 70), "uint8", 1), np.array(7, np.uint8)
    got = run_op("binary", [a, b], [("uint8", a.shape)], {"function": "add", **BYTES})[0]
    want = np.clip(np.round((real(a, "a") + real(b, "b")) / np.float32(0.0637)) + 20, 0, 255)
    assert np.abs(got - want).max() <= 1


F, L, U = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.int64), np.zeros((2, 3), np.uint8)
HOSTILE: list[tuple[list[Any], tuple[Any, ...], dict[str, Any]]] = [
    ([F, F], ("float32", (2, 3)), {"function": "frob"}),
    ([F, F], ("float32", (2, 4)), {"function": "add"}),
    ([F, F], ("float32", (3,)), {"function": "add"}),
    ([F, L], ("float32", (2, 3)), {"function": "add"}),
    ([F, F], ("int64", (2, 3)), {"function": "add"}),
    ([L, L], ("bool", (2, 3)), {"function": "add"}),
    ([L, L], ("int64", (2, 3)), {"function": "add", "activation": "relu"}),
    ([F, F], ("float32", (2, 3)), {"function": "add", "activation": "frob"}),
    ([F], ("float32", (2, 3)), {"function": "add"}),
    ([F, None], ("float32", (2, 3)), {"function": "add"}),
    ([U, U], ("uint8", (2, 3)), {"function": "add"}),
    ([U, U], ("uint8", (2, 3)), {"function": "equal", **BYTES}),
    ([U, U], ("uint8", (2, 4)), {"function": "add", **BYTES}),
    ([U, U], ("uint8", (4, 3)), {"function": "add", **BYTES}),
    ([U, L], ("uint8", (2, 3)), {"function": "add", **BYTES}),
    ([("c4", U), np.zeros((1, 2, 3), np.uint8)], ("uint8", (2, 3), "c4"), {"function": "add", **BYTES}),
    ([("c4", U), ("c4", U)], ("uint8", (1, 2, 3), "c4"), {"function": "add", **BYTES}),
    ([np.zeros((2, 3, 4, 1), np.uint8), np.zeros((2, 3, 4, 5), np.uint8)], ("uint8", (2, 3, 4, 5)), {"function": "add", **BYTES}),
]  # fmt: skip


@pytest.mark.parametrize(("inputs", "output", "attributes"), HOSTILE)
def test_hostile_files_are_refused(run_op: Any, native: Any, inputs: Any, output: Any, attributes: Any) -> None:
    with pytest.raises(native.NativeError):
        run_op("binary", inputs, [output], attributes)
