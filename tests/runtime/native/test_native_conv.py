"""The operator conv against numpy: every instruction set, shapes around the tiles, what follows the sums, hostile files."""

from __future__ import annotations

import dataclasses
import math

import conv_cases as cases
import numpy as np
import pytest
from conv_cases import Case, check, float_case, int_case
from hypothesis import given, settings
from hypothesis import strategies as st

erf = np.vectorize(math.erf)
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
QUIET = settings(max_examples=25)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("pixels", [1, 5, 15, 16, 17, 48, 49, 95, 96, 97, 197, 209])
@pytest.mark.parametrize("outputs", [1, 4, 15, 16, 33, 68])
def test_token_linear_layers_of_sizes_around_the_tile(run_plan, isa, pixels, outputs):
    check(run_plan, int_case((2, 13, pixels), (outputs, 13)), isa)
    check(run_plan, float_case((2, 7, pixels), (outputs, 7)), isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    "x, w, more",
    [
        ((1, 3, 23, 21), (8, 3, 7, 7), {"strides": [2, 2], "pads": [3, 3, 3, 3]}),
        ((2, 8, 14, 14), (20, 8, 3, 3), {"pads": [1, 1, 1, 1]}),
        ((1, 8, 9, 31), (12, 8, 3, 5), {"strides": [3, 2], "dilations": [2, 3], "pads": [0, 2, 5, 7]}),
        ((1, 12, 7, 7), (24, 4, 3, 3), {"group": 3, "pads": [1, 1, 1, 1]}),
        ((1, 6, 7, 7), (9, 2, 3, 3), {"group": 3, "pads": [1, 1, 1, 1]}),
        ((1, 6, 8, 8), (12, 1, 3, 3), {"group": 6, "pads": [1, 1, 1, 1]}),
        ((2, 5, 40), (6, 5, 4), {"strides": [3], "pads": [2, 1]}),
        ((1, 4, 5, 6, 7), (4, 4, 2, 3, 2), {"strides": [2, 1, 2], "pads": [1, 0, 1, 0, 2, 1]}),
        ((3, 40), (10, 40), {}),
        ((1, 16, 8, 8), (32, 16, 1, 1), {"strides": [2, 2]}),
        ((1, 4, 1, 1), (4, 4, 3, 3), {"pads": [1, 1, 1, 1]}),
    ],
)
def test_convolutions(run_plan, isa, x, w, more):
    check(run_plan, int_case(x, w, attributes={"x_zero_point": 113}, **more), isa)
    check(run_plan, float_case(x, w, **more), isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("size", [*range(4, 13), 16, 20])
def test_steps_of_two_over_padded_planes_of_any_size(run_plan, isa, size, kernel):
    case = cases.float_case((1, 4, size, size), (4, 4, kernel, kernel), strides=[2, 2], pads=[1] * 4)
    plan, arrays = cases.plan_of(case, isa)
    np.testing.assert_allclose(run_plan(plan, arrays, isa=isa)[0], cases.expected(case), atol=1e-4)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("pixels", [5, 16, 40, 96, 101])
@pytest.mark.parametrize("outputs", [3, 13, 40])
def test_tiles_that_come_in_parts(run_plan, isa, pixels, outputs):
    """More than the 384 KiB of one part, with sums in memory in between; 31 channels of 400 positions do not divide evenly."""
    geometry = {"strides": [1], "pads": [0, 399]}
    check(run_plan, float_case((1, 31, pixels), (outputs, 31, 400), **geometry), isa)
    if isa != "generic":  # it is slow, and the same template
        check(run_plan, int_case((1, 124, pixels), (outputs, 124, 400), **geometry), isa, threads=2)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("block", [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("density", [0.0, 0.25, 1.0])
def test_block_sparse_weights(run_plan, isa, block, density):
    for make, rows in ((int_case, block[0]), (float_case, 1)):
        case = make((2, 24, 8, 7), (21, 24, 3, 3), pads=[1, 1, 1, 1])
        rng = np.random.default_rng(3)
        for o in range(0, 21, block[1]):
            for c in range(0, 24, rows):
                dropped = rng.random((3, 3)) >= density
                case.weights[o : o + block[1], c : c + rows, dropped] = 0
        check(run_plan, dataclasses.replace(case, block=block), isa)
        check(run_plan, dataclasses.replace(case, block=block), isa, threads=2)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("residual", [None, "float32", "uint8", "int8"])
@pytest.mark.parametrize("first", [0, 1])
def test_quantized_output_with_residual(run_plan, isa, dtype, residual, first):
    rng = np.random.default_rng(5)
    for outputs, pixels in ((22, 53), (64, 16), (70, 3)):
        case = int_case((2, 20, pixels), (outputs, 20), y=np.dtype(dtype))
        case.scale = rng.uniform(1e-4, 1e-3, outputs).astype(np.float32)
        case.bias = rng.standard_normal(outputs).astype(np.float32)
        case.attributes = {"y_scale": 0.05, "y_zero_point": 7, "activation": "relu", "residual_first": first}
        if residual:
            values = rng.integers(-100, 100, (2, outputs, pixels))
            case.residual = values.astype(residual)
            case.attributes |= {"residual_scale": 0.03, "residual_zero_point": 5}
        check(run_plan, case, isa, activation=lambda v: np.maximum(v, 0))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("inputs", [48, 500])
def test_lists_of_few_outputs_end_in_bytes(run_plan, isa, dtype, outputs, inputs):
    """Tiles of one to seven vectors, whole and not, lists of zero entries and up, 500 inputs in two parts."""
    rng = np.random.default_rng(8)
    for pixels in (3, 16, 31, 45, 64, 77, 96, 109, 112, 197):
        case = int_case((1, inputs, pixels), (22, inputs), y=np.dtype(dtype), block=(4, outputs))
        kept = rng.random((22 // outputs, inputs // 4)) < rng.random((22 // outputs, 1))
        case.weights *= kept.repeat(outputs, 0).repeat(4, 1).astype(np.int8)
        case.scale = rng.uniform(1e-4, 1e-3, 22).astype(np.float32)
        case.bias = rng.standard_normal(22).astype(np.float32)
        case.attributes = {"y_scale": 0.05, "y_zero_point": 7}
        check(run_plan, case, isa)
        case.attributes["activation"] = "relu"
        check(run_plan, case, isa, activation=lambda v: np.maximum(v, 0))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("activation", ["", "leakyrelu"])
@pytest.mark.parametrize("block", [None, (4, 4), (4, 2)])
def test_its_own_rounding_comes_before_the_residual(run_plan, isa, dtype, activation, block):
    """Steps three times as coarse as the output's: who left the rounding out would be off by more than one of these."""
    rng = np.random.default_rng(6)
    for outputs, pixels in ((22, 53), (64, 16), (70, 3), (16, 196)):
        case = int_case((2, 20, pixels), (outputs, 20), y=np.dtype(dtype), block=block)
        case.scale = rng.uniform(1e-4, 1e-3, outputs).astype(np.float32)
        case.bias = rng.standard_normal(outputs).astype(np.float32)
        case.attributes = {"y_scale": 0.02, "y_zero_point": 99, "residual_scale": 0.03, "residual_zero_point": 5}
        case.attributes |= {"inner_scale": 0.0613, "inner_low": -20, "inner_high": 75}
        case.attributes |= {"activation": activation, "activation_alpha": 0.25} if activation else {}
        case.residual = rng.integers(0, 100, (2, outputs, pixels)).astype(np.uint8)
        check_rounded(run_plan, case, isa, lambda v: np.where(v < 0, 0.25 * v, v) if activation else v)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("activation", ["", "relu", "silu"])
@pytest.mark.parametrize("op", ["conv", "depthwise"])
def test_a_gate_is_a_factor(run_plan, isa, dtype, activation, op):
    """A clamp too comes before it, and is not done on the bytes; pixels that fill vectors, and those that do not."""
    rng = np.random.default_rng(9)
    functions = {"": lambda v: v, "relu": lambda v: np.maximum(v, 0), "silu": lambda v: v / (1 + np.exp(-v))}
    for outputs, side in ((22, 7), (64, 4), (7, 1), (16, 14)):
        for make in (int_case, float_case):
            width = 1 if op == "depthwise" else 5
            case = make((2, outputs if width == 1 else width, side, side), (outputs, width, 3, 3), pads=[1] * 4, op=op)
            case = dataclasses.replace(case, weights=case.weights[:, 0] if width == 1 else case.weights)
            if make is int_case:
                case.scale = rng.uniform(1e-4, 1e-3, outputs).astype(np.float32)
                case.y = np.dtype(dtype)
            case.bias = rng.standard_normal(outputs).astype(np.float32)
            case.residual = rng.standard_normal((2, outputs, side, side)).astype(np.float32)
            case.attributes = {"gated": 1, "activation": activation}
            case.attributes |= {"y_scale": 0.05, "y_zero_point": 99} if case.y == np.uint8 else {}
            check(run_plan, case, isa, activation=functions[activation])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("y_scale", [0.03, 0.001])
@pytest.mark.parametrize("block", [None, (4, 4), (4, 1)])
def test_gelu_before_eight_bits(run_plan, isa, y_scale, block):
    """In coarse steps a polynomial, in fine ones exact; far beyond the polynomial's range on both sides."""
    rng = np.random.default_rng(7)
    for outputs, pixels in ((22, 53), (64, 16), (70, 3)):
        case = int_case((2, 20, pixels), (outputs, 20), y=np.dtype("uint8"), block=block)
        case.scale = rng.uniform(1e-4, 1e-3, outputs).astype(np.float32)
        case.bias = rng.uniform(-12, 12, outputs).astype(np.float32)
        case.attributes = {"y_scale": y_scale, "y_zero_point": 15, "activation": "gelu"}
        check(run_plan, case, isa, activation=lambda v: v * 0.5 * (1 + erf(v / 2**0.5)))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("op", ["conv", "depthwise"])
@pytest.mark.parametrize("residual", [None, "first", "last"])
def test_a_factor_behind_the_activation(run_plan, isa, op, residual):
    """Per output, before a residual that comes last; of wide factors GELU in coarse steps must be as exact as in fine ones."""
    rng = np.random.default_rng(3)
    for make, outputs, side in ((int_case, 22, 7), (int_case, 64, 4), (float_case, 37, 5), (float_case, 6, 1)):
        width = 1 if op == "depthwise" else 5
        case = make((2, outputs if width == 1 else width, side, side), (outputs, width, 3, 3), pads=[1] * 4, op=op)
        case.weights = case.weights[:, 0] if width == 1 else case.weights
        case.factor = (rng.choice([0.02, 1.0, 30.0], outputs) * rng.choice([-1, 1], outputs)).astype(np.float32)
        case.bias = rng.standard_normal(outputs).astype(np.float32)
        case.attributes = {"activation": "gelu"}
        if make is int_case:
            case.scale = rng.uniform(1e-4, 1e-3, outputs).astype(np.float32)
            case.y = np.dtype("uint8")
            case.attributes |= {"y_scale": 0.01, "y_zero_point": 99}
        if residual:
            case.residual = rng.standard_normal((2, outputs, side, side)).astype(np.float32)
            case.attributes["residual_first"] = int(residual == "first")
        check(run_plan, case, isa, activation=lambda v: v * 0.5 * (1 + erf(v / 2**0.5)))


@pytest.mark.parametrize("activation", ["", "relu", "clip", "gelu"])
def test_factors_that_nothing_takes_are_refused(run_plan, native, activation):
    """Behind a clamp or nothing, and in rows of another length."""
    case = int_case((1, 8, 9, 9), (8, 8, 3, 3), factor=np.ones(8, np.float32), attributes={"activation": activation})
    plan, arrays = cases.plan_of(case)
    if activation == "gelu":
        run_plan(plan, arrays)
        plan.ops[0].inputs[2] = cases.constant("scale", np.ones((3, 8), np.float32))
    with pytest.raises(native.NativeError, match="factors that nothing takes"):
        run_plan(plan, arrays)


def check_rounded(run_plan, case, isa, activation):
    """Floats equal but for the few that a rounding tips to the next step of inner_scale."""
    if case.y == np.uint8:
        steps = case.attributes["inner_scale"] / case.attributes["y_scale"]
        plan, arrays = cases.plan_of(case, isa)
        got = cases.unpacked(case, run_plan(plan, arrays, isa=isa)[0]).astype(float)
        off = np.abs(got - cases.expected(case, activation))
        assert np.mean(off > 0) <= 0.002 and off.max() <= np.ceil(steps)
        return
    plan, arrays = cases.plan_of(case, isa)
    off = np.abs(run_plan(plan, arrays, isa=isa)[0] - cases.expected(case, activation))
    assert np.mean(off > 1e-4) <= 0.002 and off.max() < 1.01 * case.attributes["inner_scale"]


@pytest.mark.parametrize("isa", ISAS)
def test_activations_clip_and_saturation(run_plan, isa):
    case = int_case((1, 8, 40), (8, 8), y=np.dtype("uint8"))
    case.attributes = {"y_scale": 1e-6, "y_zero_point": 3}
    check(run_plan, case, isa)
    case.attributes = {
        "y_scale": 500.0,
        "y_zero_point": 3,
        "activation": "clip",
        "activation_alpha": -900.0,
        "activation_beta": 30000.0,
    }
    check(run_plan, case, isa, activation=lambda v: np.clip(v, -900, 30000))
    case = float_case((1, 8, 40), (8, 8))
    case.attributes = {"activation": "leakyrelu", "activation_alpha": 0.25}
    check(run_plan, case, isa, activation=lambda v: np.where(v < 0, 0.25 * v, v))
    case.attributes = {"activation": "silu"}
    check(run_plan, case, isa, activation=lambda v: v / (1 + np.exp(-v)))


@st.composite
def drawn(draw) -> Case:
    spatial = draw(st.integers(0, 3))
    kernel = [draw(st.integers(1, 4)) for _ in range(spatial)]
    dilations = [draw(st.integers(1, 3)) for _ in range(spatial)]
    pads = [draw(st.integers(0, 3)) for _ in range(2 * spatial)]
    limit = {0: 1, 1: 120, 2: 15, 3: 6}[spatial]
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    sizes = [draw(st.integers(max(1, e - pads[i] - pads[spatial + i]), limit + e)) for i, e in enumerate(extent)]
    group = draw(st.sampled_from([1, 1, 2, 3, 4]))
    channels, outputs = group * draw(st.integers(1, 9)), group * draw(st.integers(1, 24))
    make = draw(st.sampled_from([int_case, float_case]))
    return make(
        (draw(st.integers(1, 2)), channels, *sizes),
        (outputs, channels // group, *kernel),
        draw(st.integers(0, 1000)),
        group=group,
        strides=[draw(st.integers(1, 3)) for _ in range(spatial)],
        dilations=dilations,
        pads=pads,
        block=draw(st.sampled_from([None, (4, 4), (4, 2), (4, 1)])),
        attributes={"x_zero_point": draw(st.integers(0, 255))} if make is int_case else {},
    )


@pytest.mark.parametrize("isa", ISAS)
@QUIET
@given(case=drawn(), threads=st.sampled_from([1, 3]))
def test_drawn_convolutions(run_plan, isa, case, threads):
    check(run_plan, case, isa, threads)


@st.composite
def stepping_rows(draw) -> Case:
    """What float32 layers with steps of 2 compute row by row, straight from the planes (kernels/conv_rows.h)."""
    inputs = draw(st.integers(1, 6))
    outputs = draw(st.sampled_from([32, 96] if inputs > 4 else [1, 16, 24, 32, 48, 70]))
    kernel = [draw(st.integers(3, 5)), draw(st.sampled_from([3, 5, 7]))]
    pads = [draw(st.integers(0, 4)) for _ in range(3)] + [draw(st.sampled_from([0, 1, 2, 60]))]
    columns = draw(st.sampled_from([14, 26, 27, 28, 40, 56]))  # of y; at the right end they may meet padding alone
    width = max(1, 2 * (columns - 1) + kernel[1] - pads[1] - pads[3] + draw(st.integers(0, 1)))
    case = float_case(
        (draw(st.integers(1, 2)), inputs, draw(st.integers(max(1, kernel[0] - pads[0] - pads[2]), 9)), width),
        (outputs, inputs, *kernel),
        draw(st.integers(0, 1000)),
        strides=[draw(st.integers(1, 3)), 2],
        pads=pads,
    )
    case.bias = np.random.default_rng(7).standard_normal(outputs).astype(np.float32)
    case.attributes["activation"] = draw(st.sampled_from(["", "relu"]))
    return case


@pytest.mark.parametrize("isa", ["avx2", "avx512"])
@settings(max_examples=40)
@given(case=stepping_rows(), threads=st.sampled_from([1, 3]))
def test_rows_with_steps_of_two(run_plan, isa, case, threads):
    activation = (lambda v: np.maximum(v, 0)) if case.attributes["activation"] else (lambda v: v)
    check(run_plan, case, isa, threads, activation=activation)


HOSTILE = [
    {"kernel": [5]},
    {"kernel": [0, 3]},
    {"kernel": [1 << 40, 3]},
    {"kernel": [1 << 23, 1 << 23]},
    {"strides": [0, 1]},
    {"strides": [-1, 1]},
    {"dilations": [1 << 30, 1]},
    {"pads": [-1, 0, 0, 0]},
    {"pads": [1, 1]},
    {"group": 0},
    {"group": 3},
    {"group": -(1 << 62)},
    {"group": 8},
    {"x_zero_point": 256},
    {"activation": "floor"},
    {"activation": "nothing"},
    {"y_scale": 0.0},
    {"y_scale": -1.0},
    {"y_scale": float("nan")},
    {"y_zero_point": 999},
    {"inner_scale": 1.0},
]


@pytest.mark.parametrize("attributes", HOSTILE)
def test_hostile_attributes_are_refused(run_plan, native, attributes):
    case = int_case((1, 8, 9, 9), (8, 8, 3, 3), y=np.dtype("uint8"), attributes={"y_scale": 1.0, "y_zero_point": 0})
    plan, arrays = cases.plan_of(case)
    plan.ops[0].attributes = {**plan.ops[0].attributes, **attributes}
    with pytest.raises(native.NativeError, match="conv layer"):
        run_plan(plan, arrays)


@pytest.mark.parametrize(
    "attributes",
    [
        {"inner_scale": 0.0},
        {"inner_scale": -1.0},
        {"inner_scale": float("nan")},
        {"inner_scale": 1e-45},
        {"inner_scale": 1.0, "inner_low": 4, "inner_high": 3},
        {"inner_scale": 1.0, "inner_low": -256},
        {"inner_scale": 1.0, "inner_high": 1 << 60},
        {"inner_scale": 1.0, "residual_first": 1},
        {"residual_scale": 0.0},
        {"residual_zero_point": -1},
        {"gated": 1},  # by bytes
    ],
)
def test_hostile_residuals_are_refused(run_plan, native, attributes):
    case = int_case((1, 8, 9, 9), (8, 8, 3, 3), y=np.dtype("uint8"), residual=np.zeros((1, 8, 7, 7), np.uint8))
    case.attributes = {"y_scale": 1.0, "y_zero_point": 0, "residual_scale": 1.0, "residual_zero_point": 0}
    plan, arrays = cases.plan_of(case)
    plan.ops[0].attributes = {**plan.ops[0].attributes, **attributes}
    with pytest.raises(native.NativeError, match="conv layer"):
        run_plan(plan, arrays)


@pytest.mark.parametrize(
    "name, change",
    [
        ("weights", lambda a: a[..., :-1, :, :]),
        ("weights", lambda a: a[:0]),
        ("index", lambda a: a + 100),
        ("index", lambda a: a - 100),
        ("index", lambda a: a[:-1]),
        ("start", lambda a: a[:-1]),
        ("start", lambda a: a[::-1]),
        ("start", lambda a: a + 1),
        ("start", lambda a: a - 1),
    ],
)
def test_hostile_constants_are_refused(run_plan, native, name, change):
    block = None if name == "weights" else (4, 4)
    case = int_case((1, 8, 9, 9), (8, 8, 3, 3), block=block)
    packed = cases.packed_of(case)
    packed.constants[name] = np.ascontiguousarray(change(packed.constants[name]))
    plan, arrays = cases.plan_of(case, packed=packed)
    with pytest.raises(native.NativeError, match="conv layer"):
        run_plan(plan, arrays)


def test_operands_that_do_not_fit_are_refused(run_plan, native):
    case = int_case((1, 8, 9, 9), (8, 8, 3, 3))
    for field, value in (("scale", np.ones(7, np.float32)), ("scale", None), ("bias", np.ones(9, np.float32))):
        plan, arrays = cases.plan_of(dataclasses.replace(case, **{field: value}))
        with pytest.raises(native.NativeError, match="conv layer"):
            run_plan(plan, arrays)
    plan, arrays = cases.plan_of(dataclasses.replace(case, residual=np.zeros((1, 8, 7, 8), np.float32)))
    with pytest.raises(native.NativeError, match="residual"):
        run_plan(plan, arrays)


def coded(isa: str = "generic", **attributes):
    """A plan whose weights [33, 20] are codes of 4 bits, two scales to an output; and what it gives."""
    rng = np.random.default_rng(8)
    codes, terms = rng.integers(0, 16, (33, 20)), rng.standard_normal((33, 2, 2)).astype(np.float32)
    real = codes * terms[:, :, 0].repeat(10, 1) + terms[:, :, 1].repeat(10, 1)
    case = float_case((2, 20, 23), (33, 20))
    case.weights = real.astype(np.float32)
    plan, arrays = cases.plan_of(case, isa)
    lines = np.zeros((48, 20), np.uint8)
    lines[:33] = codes
    lines = lines.reshape(3, 16, 20).swapaxes(1, 2)
    full = np.zeros((48, 2, 2), np.float32)
    full[:33] = terms
    op = plan.ops[0]
    op.inputs[1] = cases.constant("weights", np.ascontiguousarray(lines[:, 0::2] | lines[:, 1::2] << 4))
    op.inputs[7:] = [cases.constant("terms", np.ascontiguousarray(full.reshape(3, 16, 2, 2).transpose(0, 2, 3, 1)))]
    op.attributes = {"weight_bits": 4, "weight_block": 10, **attributes}
    return plan, arrays, cases.expected(case)


@pytest.mark.parametrize("isa", ISAS)
def test_weights_in_codes(run_plan, isa):
    plan, arrays, want = coded(isa)
    np.testing.assert_allclose(run_plan(plan, arrays, isa=isa, threads=2)[0], want, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "attributes",
    [{"weight_bits": 5}, {"weight_bits": 8}, {"weight_block": 0}, {"weight_block": -1}, {"weight_block": 9}],
)
def test_hostile_codes_are_refused(run_plan, native, attributes):
    plan, arrays, _ = coded(**attributes)
    with pytest.raises(native.NativeError, match="conv layer"):
        run_plan(plan, arrays)


@pytest.mark.parametrize("operand", [1, 7])
def test_codes_that_are_too_few_are_refused(run_plan, native, operand):
    plan, arrays, _ = coded()
    data = plan.ops[0].inputs[operand].data
    plan.ops[0].inputs[operand] = cases.constant("short", np.ascontiguousarray(data[:-1]))
    with pytest.raises(native.NativeError, match="conv layer"):
        run_plan(plan, arrays)
