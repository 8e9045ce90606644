"""Between float32 and 8 bits, between their layouts, and tables of bytes."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ISAS = ("generic", "avx2", "avx512", "avx512bf16", "neon", "vec4", "vec4_on_riscv64", "vec4_on_wasm32")
LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}
QUICK = settings(max_examples=40)
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(0, 40) | st.sampled_from([511, 512, 513]))


def quantized(x: np.ndarray, scale: float, zero: int, dtype: str) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        steps = np.round(x / np.float32(scale)) + zero
    return np.clip(steps, *LIMITS[dtype]).astype(dtype)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("layout", ["c4", "plain"])
@QUICK
@given(shape=SHAPES, zero=st.integers(0, 127))
def test_quantize_and_back(run_op: Any, isa: str, dtype: str, layout: str, shape: tuple[int, ...], zero: int) -> None:
    x = np.random.default_rng(0).normal(0, 3, shape).astype(np.float32)
    attributes = {"scale": 0.0371, "zero_point": zero}
    output = (dtype, shape, "c4") if layout == "c4" else (dtype, shape)
    got = run_op("quantize", [x], [output], attributes, isa=isa)[0]
    want = quantized(x, 0.0371, zero, dtype)
    np.testing.assert_array_equal(got, want)
    back = run_op("dequantize", [("c4", got) if layout == "c4" else got], [("float32", shape)], attributes, isa=isa)[0]
    np.testing.assert_array_equal(back, (got.astype(np.float32) - zero) * np.float32(0.0371))


@pytest.mark.parametrize("isa", ISAS)
def test_ties_go_to_even_and_what_is_too_large_saturates(run_op: Any, isa: str) -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 1e30, -1e30, np.inf, -np.inf, np.nan, 126.6, 127.5], np.float32)
    got = run_op("quantize", [x], [("int8", x.shape)], {"scale": 1.0, "zero_point": 0}, isa=isa)[0]
    np.testing.assert_array_equal(got, [0, 2, 2, 0, -2, 127, -128, 127, -128, -128, 127, 127])
    got = run_op("quantize", [x], [("uint8", x.shape)], {"scale": 1.0, "zero_point": 3}, isa=isa)[0]
    np.testing.assert_array_equal(got, [3, 5, 5, 3, 1, 255, 0, 255, 0, 0, 130, 131])


@pytest.mark.parametrize("isa", ISAS)
@QUICK
@given(largest=st.integers(1, 1000), least=st.integers(-255, 0))
def test_steps_of_round_numbers_are_divided_by(run_op: Any, isa: str, largest: int, least: int) -> None:
    """Where steps are made of whole numbers, as those of pixels, many quotients are ties or next to one."""
    scale = float(np.float32(largest / 255))
    x = np.arange(least, least + 256, dtype=np.float32).reshape(1, 4, 64)
    for output in (("uint8", x.shape), ("uint8", x.shape, "c4")):
        got = run_op("quantize", [x], [output], {"scale": scale, "zero_point": 114}, isa=isa)[0]
        np.testing.assert_array_equal(got, quantized(x, scale, 114, "uint8"))


@QUICK
@given(SHAPES, st.sampled_from(list(LIMITS)), st.sampled_from([1, 2]))
def test_relayout(run_op: Any, shape: tuple[int, ...], dtype: str, threads: int) -> None:
    x = np.random.default_rng(0).integers(*LIMITS[dtype], shape, endpoint=True).astype(dtype)
    packed = run_op("relayout", [x], [(dtype, shape, "c4")], threads=threads)[0]
    np.testing.assert_array_equal(packed, x)
    np.testing.assert_array_equal(run_op("relayout", [("c4", x)], [(dtype, shape)], threads=threads)[0], x)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("layouts", [("", ""), ("c4", "c4"), ("", "c4"), ("c4", "")])
@pytest.mark.parametrize("dtypes", [("uint8", "uint8"), ("uint8", "int8"), ("int8", "uint8")])
def test_requantize_and_lut(run_op: Any, isa: str, layouts: tuple[str, str], dtypes: tuple[str, str]) -> None:
    shape = (2, 6, 35)
    x = np.random.default_rng(0).integers(*LIMITS[dtypes[0]], shape, endpoint=True).astype(dtypes[0])
    attributes = {"x_scale": 0.11, "x_zero_point": 3, "y_scale": 0.07, "y_zero_point": 9}
    output = (dtypes[1], shape, "c4") if layouts[1] else (dtypes[1], shape)
    operand = ("c4", x) if layouts[0] else x
    got = run_op("requantize", [operand], [output], attributes, isa=isa)[0]
    want = quantized((x.astype(np.float32) - 3) * np.float32(0.11), 0.07, 9, dtypes[1])
    assert np.abs(got.astype(int) - want).max() <= 1 and np.mean(got != want) < 0.01
    table = np.random.default_rng(1).integers(0, 256, 256).astype(np.uint8)
    got = run_op("lut", [operand, ("const", table)], [output], isa=isa)[0]
    np.testing.assert_array_equal(got.view(np.uint8), table[x.view(np.uint8)])


F, U = np.zeros((1, 4, 3), np.float32), np.zeros((1, 4, 3), np.uint8)
Q = {"scale": 0.1, "zero_point": 1}
TABLE = ("const", np.zeros(256, np.uint8))
HOSTILE: list[tuple[str, list[Any], tuple[Any, ...], dict[str, Any]]] = [
    ("quantize", [F], ("uint8", (1, 4, 3)), {"zero_point": 0}),
    ("quantize", [F], ("uint8", (1, 4, 3)), {"scale": float("nan")}),
    ("quantize", [F], ("uint8", (1, 4, 3)), {"scale": 1e-45}),
    ("quantize", [F], ("uint8", (1, 4, 3)), {"scale": 0.1, "zero_point": 256}),
    ("quantize", [F], ("int8", (1, 4, 3)), {"scale": 0.1, "zero_point": 128}),
    ("quantize", [F], ("uint8", (1, 4, 4)), Q),
    ("quantize", [F], ("uint8", (4, 3)), Q),
    ("quantize", [U], ("uint8", (1, 4, 3)), Q),
    ("quantize", [F], ("float32", (1, 4, 3)), Q),
    ("dequantize", [F], ("float32", (1, 4, 3)), Q),
    ("dequantize", [U], ("float32", (1, 3, 4)), Q),
    ("relayout", [U], ("int8", (1, 4, 3)), {}),
    ("relayout", [U], ("uint8", (1, 4, 4)), {}),
    ("requantize", [U], ("uint8", (1, 4, 3)), {"x_scale": 0.1}),
    ("lut", [U, ("const", np.zeros(255, np.uint8))], ("uint8", (1, 4, 3)), {}),
    ("lut", [U, np.zeros(256, np.uint8)], ("uint8", (1, 4, 3)), {}),
    ("lut", [F, TABLE], ("uint8", (1, 4, 3)), {}),
    ("lut", [U, TABLE], ("uint8", (1, 4, 4)), {}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "inputs", "output", "attributes"), HOSTILE)
def test_hostile_files_are_refused(
    run_op: Any, native: Any, op: str, inputs: Any, output: Any, attributes: Any
) -> None:
    with pytest.raises(native.NativeError):
        run_op(op, inputs, [output], attributes)


def test_every_bfloat16_and_back(run_op: Any) -> None:
    """numpy has none: its bits go in and out."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    brain = bits.view(ml_dtypes.bfloat16)
    wide = run_op("cast", [brain], [("float32", bits.shape)])[0]
    np.testing.assert_array_equal(wide, brain.astype(np.float32))
    with np.errstate(over="ignore"):
        between = wide.view(np.uint32)[:, None] + np.array([1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    x = np.concatenate([wide, between.reshape(-1).view(np.float32)])
    made = run_op("cast", [x], [("bfloat16", x.shape)])[0].view(ml_dtypes.bfloat16)
    with np.errstate(invalid="ignore"):  # NaNs
        np.testing.assert_array_equal(made.astype(np.float32), x.astype(ml_dtypes.bfloat16).astype(np.float32))


@pytest.mark.parametrize("isa", ["generic", "neon"])
def test_every_float16_and_back(run_op: Any, isa: str) -> None:
    """Also those between two, half way between two, just beside that, and beyond the largest."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    wide = run_op("cast", [halves], [("float32", halves.shape)], isa=isa)[0]
    np.testing.assert_array_equal(wide, halves.astype(np.float32))
    numbers = wide[np.isfinite(wide)]
    between = np.concatenate([numbers + (np.nextafter(numbers, np.float32(np.inf)) - numbers) * k for k in (1, 4095)])
    x = np.concatenate(
        [wide, between, (numbers[:-1] + numbers[1:]) / 2, np.float32([65519.9, 65520, 1e9, -1e30, 1e-9])]
    ).astype(np.float32)
    with np.errstate(over="ignore"):
        want = x.astype(np.float16)
    np.testing.assert_array_equal(run_op("cast", [x], [("float16", x.shape)], isa=isa)[0], want)
