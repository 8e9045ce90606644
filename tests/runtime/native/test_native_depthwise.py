"""The operator depthwise against numpy: every instruction set, strides, dilations, multipliers, hostile files."""

from __future__ import annotations

import conv_cases as cases
import numpy as np
import pytest
from conv_cases import Case, check, float_case, int_case
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.targets.cpu.native.plan import dim

ISAS = (
    "generic",
    "avx2",
    "avx512",
    "avx512vnni",
    "avx512bf16",
    "neon",
    "neon_dotprod",
    "neon_i8mm",
    "vec4",
    "vec4_on_riscv64",
    "vec4_on_wasm32",
)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(7, 7), (14, 15), (30, 97), (1, 1)])
@pytest.mark.parametrize("channels", [4, 11])
def test_kernels_and_strides(run_plan, isa, kernel, stride, size, channels):
    geometry = {"strides": [stride, stride], "pads": [kernel // 2] * 4, "op": "depthwise"}
    check(
        run_plan,
        int_case((2, channels, *size), (channels, kernel, kernel), attributes={"x_zero_point": 9}, **geometry),
        isa,
    )
    check(run_plan, float_case((2, channels, *size), (channels, kernel, kernel), **geometry), isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [(7, 9), (3, 40)])
@pytest.mark.parametrize("residual", [None, "uint8", "float32"])
@pytest.mark.parametrize("activation", ["", "relu", "clip", "silu"])
def test_quantized_output(run_plan, isa, size, residual, activation):
    rng = np.random.default_rng(2)
    case = int_case((1, 10, *size), (10, 3, 3), pads=[1] * 4, op="depthwise", y=np.dtype("uint8"))
    case.scale = rng.uniform(1e-4, 1e-3, 10).astype(np.float32)
    case.bias = rng.standard_normal(10).astype(np.float32)
    case.attributes = {"y_scale": 0.05, "y_zero_point": 40, "activation": activation, "x_zero_point": 3}
    case.attributes |= {"activation_alpha": -1.0, "activation_beta": 4.0} if activation == "clip" else {}
    if residual:
        case.residual = rng.integers(0, 100, (1, 10, *size)).astype(residual)
        case.attributes |= {"residual_scale": 0.03, "residual_zero_point": 5}
    functions = {
        "": lambda v: v,
        "relu": lambda v: np.maximum(v, 0),
        "clip": lambda v: np.clip(v, -1, 4),
        "silu": lambda v: v / (1 + np.exp(-v)),
    }
    check(run_plan, case, isa, activation=functions[activation])


@st.composite
def drawn(draw) -> Case:
    spatial = draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 9 if spatial == 1 else 4)) for _ in range(spatial)]
    dilations = [draw(st.integers(1, 3)) for _ in range(spatial)]
    pads = [draw(st.integers(0, 3)) for _ in range(2 * spatial)]
    limit = {1: 120, 2: 20, 3: 6}[spatial]
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    sizes = [draw(st.integers(max(1, e - pads[i] - pads[spatial + i]), limit + e)) for i, e in enumerate(extent)]
    channels, multiplier = draw(st.integers(1, 9)), draw(st.sampled_from([1, 1, 2, 4]))
    make = draw(st.sampled_from([int_case, float_case]))
    return make(
        (draw(st.integers(1, 2)), channels, *sizes),
        (channels * multiplier, *kernel),
        draw(st.integers(0, 1000)),
        strides=[draw(st.integers(1, 3)) for _ in range(spatial)],
        dilations=dilations,
        pads=pads,
        op="depthwise",
        attributes={"x_zero_point": draw(st.integers(0, 255))} if make is int_case else {},
    )


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=40)
@given(case=drawn(), threads=st.sampled_from([1, 3]))
def test_drawn_shapes(run_plan, isa, case, threads):
    check(run_plan, case, isa, threads)


@st.composite
def planes(draw) -> Case:
    """What kernels of whole planes take: one stride, no dilation; 8 bits to 8 bits, or float32 with anything behind it."""
    kernel = [draw(st.sampled_from([3, 5, 7])), draw(st.integers(1, 9))]
    stride, pads = draw(st.sampled_from([1, 2])), [draw(st.integers(0, 4)) for _ in range(4)]
    sizes = [draw(st.integers(max(1, kernel[i] - pads[i] - pads[2 + i]), 70)) for i in range(2)]
    channels, multiplier = draw(st.integers(1, 6)), draw(st.sampled_from([1, 1, 2, 4]))
    make = draw(st.sampled_from([int_case, float_case]))
    case = make(
        (draw(st.integers(1, 2)), channels, *sizes),
        (channels * multiplier, *kernel),
        draw(st.integers(0, 1000)),
        strides=[stride] * 2,
        pads=pads,
        op="depthwise",
        attributes={"x_zero_point": draw(st.integers(0, 255))} if make is int_case else {},
    )
    rng = np.random.default_rng(4)
    case.bias = rng.standard_normal(channels * multiplier).astype(np.float32)
    case.attributes["activation"] = draw(st.sampled_from(["", "relu"] if make is int_case else ["", "relu", "silu"]))
    if make is int_case:
        case.y = np.dtype(draw(st.sampled_from(["uint8", "int8"])))
        case.scale = rng.uniform(1e-4, 1e-3, channels * multiplier).astype(np.float32)
        case.attributes |= {"y_scale": 0.2, "y_zero_point": 11}
    elif draw(st.booleans()):
        case.residual = rng.standard_normal(case.y_dims, np.float32)
    return case


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=60)
@given(case=planes(), threads=st.sampled_from([1, 3]))
def test_drawn_planes(run_plan, isa, case, threads):
    functions = {
        "": lambda v: v,
        "relu": lambda v: np.maximum(v, 0),
        "silu": lambda v: v / (1 + np.exp(-v)),
    }
    check(run_plan, case, isa, threads, activation=functions[case.attributes["activation"]])


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel": [5, 3]},
        {"kernel": [1 << 24, 1 << 24]},
        {"strides": [0, 1]},
        {"pads": [1]},
        {"x_zero_point": -1},
        {"activation": "x"},
    ],
)
def test_hostile_attributes_are_refused(run_plan, native, attributes):
    plan, arrays = cases.plan_of(int_case((1, 8, 9, 9), (8, 3, 3), op="depthwise"))
    plan.ops[0].attributes = {**plan.ops[0].attributes, **attributes}
    with pytest.raises(native.NativeError, match="depthwise layer"):
        run_plan(plan, arrays)


def test_operands_that_do_not_fit_are_refused(run_plan, native):
    case = int_case((1, 8, 9, 9), (8, 3, 3), op="depthwise")
    packed = cases.packed_of(case)
    packed.constants["weights"] = packed.constants["weights"][:-1]
    plan, arrays = cases.plan_of(case, packed=packed)
    with pytest.raises(native.NativeError, match="too few weights"):
        run_plan(plan, arrays)
    for multiplier in (3, 5):
        plan, arrays = cases.plan_of(int_case((1, 8, 9, 9), (8 * multiplier, 3, 3), op="depthwise"))
        with pytest.raises(native.NativeError, match="1, 2 or 4 outputs"):
            run_plan(plan, arrays)


def test_an_empty_output_takes_no_time(run_plan):
    """A dim of 0 leaves the others without a bound: 2^40 rows would be gone through for nothing."""
    plan, arrays = cases.plan_of(float_case((1, 4, 1, 0), (4, 3, 3), pads=[1] * 4, op="depthwise"))
    for tensor in (*plan.inputs, *plan.outputs):
        tensor.dims = (*tensor.dims[:2], dim(1 << 40), dim(0))
    (y,) = run_plan(plan, [array.reshape(1, 4, 1 << 40, 0) for array in arrays])
    assert y.shape == (1, 4, 1 << 40, 0)
