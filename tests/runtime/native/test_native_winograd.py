"""The operator winograd against numpy: every instruction set, shapes around its tiles and blocks, what follows, hostile files."""

from __future__ import annotations

import conv_cases as cases
import numpy as np
import pytest
from conv_cases import Case, check, float_case, int_case
from hypothesis import given, settings
from hypothesis import strategies as st

ISAS = ("generic", "avx2", "avx512", "avx512vnni", "avx512bf16", "neon", "vec4")
QUIET = settings(max_examples=25)


def winograd_case(x_shape, outputs, seed=0, **more) -> Case:
    return float_case(x_shape, (outputs, x_shape[1], 3, 3), seed, op="winograd", **more)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("outputs", [1, 15, 16, 33, 68])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (7, 7), (8, 9), (14, 14), (3, 40), (40, 3), (28, 28)])
def test_sizes_around_tiles_and_blocks(run_plan, isa, threads, outputs, size):
    """28x28 are 196 tiles: with AVX-512 12 vectors and a quarter, in three blocks."""
    check(run_plan, winograd_case((2, 5, *size), outputs, pads=[1, 1, 1, 1]), isa, threads)


def bytes_case(x_shape, outputs, seed=0, zero_point=0, **more) -> Case:
    attributes = {"x_zero_point": zero_point}
    return int_case(x_shape, (outputs, x_shape[1], 3, 3), seed, op="winograd", attributes=attributes, **more)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("outputs", [1, 33, 64])
@pytest.mark.parametrize("size", [(1, 1), (7, 7), (8, 9), (3, 40), (40, 3), (28, 28)])
def test_bytes_are_exact(run_plan, isa, outputs, size):
    check(run_plan, bytes_case((2, 7, *size), outputs, zero_point=77, pads=[1, 1, 1, 1]), isa, threads=3)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("x", [0, 255])
@pytest.mark.parametrize("w", [-128, 127])
def test_bytes_at_their_bounds(run_plan, isa, x, w):
    """As large as 16 bits must hold: x turns with the pixels, weights are all alike or turn with the positions."""
    case = bytes_case((1, 32, 12, 12), 16, zero_point=255 - x, pads=[1, 1, 1, 1])
    case.x[:] = np.where(np.indices((12, 12)).sum(0) % 2, x, 255 - x)
    case.weights[:8] = w
    case.weights[8:] = np.where(np.indices((3, 3)).sum(0) % 2, w, -w - 1)
    check(run_plan, case, isa)


def test_bytes_of_as_many_channels_as_32_bits_hold(run_plan, native):
    case = bytes_case((1, 1820, 4, 4), 4)
    case.x[:], case.weights[:] = 255, -128
    check(run_plan, case)
    with pytest.raises(native.NativeError, match="at most 1820 channels of u8"):
        check(run_plan, bytes_case((1, 1821, 4, 4), 4))


@st.composite
def drawn(draw) -> Case:
    pads = [draw(st.integers(0, 4)) for _ in range(4)]
    sizes = [draw(st.integers(max(1, 3 - pads[i] - pads[2 + i]), 40)) for i in range(2)]
    shape = (draw(st.integers(0, 2)), draw(st.integers(1, 20)), *sizes)
    outputs, seed = draw(st.integers(1, 140)), draw(st.integers(0, 1000))
    if shape[0] > 0 and draw(st.booleans()):
        return bytes_case(shape, outputs, seed, draw(st.integers(0, 255)), pads=pads)
    return winograd_case(shape, outputs, seed, pads=pads)


@pytest.mark.parametrize("isa", ISAS)
@QUIET
@given(case=drawn(), threads=st.sampled_from([1, 3]))
def test_drawn_shapes(run_plan, isa, case, threads):
    check(run_plan, case, isa, threads)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("made", [winograd_case, bytes_case])
def test_what_follows(run_plan, isa, dtype, first, residual, activation, made):
    """Scale, bias, residual, activation and rounding reach the pixels that they belong to; 9 rows and 11 columns end within tiles."""
    rng = np.random.default_rng(1)
    case = made((2, 6, 9, 11), 38, pads=[1, 1, 1, 1], y=np.dtype(dtype))
    size = 1 if made is winograd_case else 1e-4  # of a sum of integers
    case.scale, case.bias = (
        (rng.uniform(0.1, 1, 38) * size).astype(np.float32),
        rng.standard_normal(38).astype(np.float32),
    )
    case.attributes |= {"activation": activation, "residual_first": first, "y_scale": 0.1, "y_zero_point": 9}
    if residual:
        case.residual = rng.integers(0, 200, (2, 38, 9, 11)).astype(np.uint8)
        case.attributes |= {"residual_scale": 0.0313, "residual_zero_point": 5}
    functions = {"relu": lambda v: np.maximum(v, 0), "silu": lambda v: v / (1 + np.exp(-v))}
    check(run_plan, case, isa, activation=functions[activation])


HOSTILE = [
    {"kernel": [5, 5]},
    {"kernel": [3]},
    {"strides": [2, 1]},
    {"dilations": [1, 2]},
    {"pads": [-1, 0, 0, 0]},
    {"pads": [2, 1, 1, 1]},
    {"lines": 0},
    {"lines": -1},
    {"lines": 3},
    {"lines": 1 << 62},
    {"activation": "floor"},
]


@pytest.mark.parametrize("attributes", HOSTILE)
def test_hostile_attributes_are_refused(run_plan, native, attributes):
    plan, arrays = cases.plan_of(winograd_case((1, 8, 9, 9), 64, pads=[1, 1, 1, 1]))
    plan.ops[0].attributes = {**plan.ops[0].attributes, **attributes}
    with pytest.raises(native.NativeError, match="winograd layer: "):
        run_plan(plan, arrays)


def test_weights_that_are_too_few_are_refused(run_plan, native):
    case = winograd_case((1, 8, 9, 9), 64, pads=[1, 1, 1, 1])
    plan, arrays = cases.plan_of(case)
    plan.ops[0].inputs[1] = cases.constant("weights", plan.ops[0].inputs[1].data.ravel()[:-1])
    with pytest.raises(native.NativeError, match="too few weights"):
        run_plan(plan, arrays)


def test_operands_of_other_kinds_are_refused(run_plan, native):
    plan, arrays = cases.plan_of(int_case((1, 8, 9, 9), (8, 8, 3, 3), pads=[1, 1, 1, 1]))
    plan.ops[0].op = "winograd"
    with pytest.raises(native.NativeError, match="wants constant weights, in float32 or for u8 in 16 bits"):
        run_plan(plan, arrays)
    plan, arrays = cases.plan_of(int_case((1, 8, 9), (8, 8, 3), pads=[1, 1]))
    plan.ops[0].op = "winograd"
    with pytest.raises(native.NativeError, match="wants x as plain float32 or u8 in C4, of 4 dims"):
        run_plan(plan, arrays)


@pytest.mark.parametrize("zero_point", [-1, 256])
def test_zero_points_of_other_ranges_are_refused(run_plan, native, zero_point):
    plan, arrays = cases.plan_of(bytes_case((1, 8, 9, 9), 8, zero_point=zero_point))
    with pytest.raises(native.NativeError, match="x_zero_point is out of range"):
        run_plan(plan, arrays)
