"""The operator separable against depthwise and conv apart: every instruction set, shapes around tiles and strips, hostile files."""

from __future__ import annotations

from collections.abc import Sequence

import conv_cases as cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.targets.cpu.native.packing import pack_conv, pack_depthwise
from edgewise.targets.cpu.native.plan import DType, Isa, Layout, Op, Plan, Tensor, dim

ISAS = (
    *("generic", "avx2", "avx512", "avx512vnni", "avx512bf16", "neon", "neon_dotprod", "neon_i8mm"),
    *("vec4", "vec4_on_riscv64", "vec4_on_wasm32"),
)
FIRST = {
    "x_zero_point": 9, "y_scale": 0.05, "y_zero_point": 31, "activation": "clip", "activation_alpha": 0.0, "activation_beta": 6.0,
}  # fmt: skip
SECOND = {"x_zero_point": 31, "y_scale": 0.1, "y_zero_point": 100}


def out_size(size: int, kernel: int, stride: int, pad: int) -> int:
    return (size + 2 * pad - kernel) // stride + 1


def plans(
    x: np.ndarray, kernel: int, outputs: int, stride: int = 1, block=None, residual: bool = False, isa: str = "generic"
) -> tuple[Plan, Plan, list[np.ndarray]]:
    """The two operators apart and as one, and the arrays for both: x uint8 or float32 [N, C, H, W]."""
    rng = np.random.default_rng(7)
    (n, channels, *sizes), integer = x.shape, x.dtype == np.uint8
    pads = [kernel // 2] * 4
    out = [out_size(size, kernel, stride, kernel // 2) for size in sizes]
    weights = rng.integers(-127, 128, (channels, kernel, kernel)), rng.integers(-127, 128, (outputs, channels))
    if block:
        weights[1][:, rng.random(channels) < 0.6] = 0
    first = pack_depthwise(weights[0].astype(np.int8 if integer else np.float32))
    second = pack_conv(weights[1].astype(np.int8 if integer else np.float32), block=block)

    def constants(count: int, size: float) -> list[Tensor]:
        scale, bias = rng.uniform(size / 2, size, count), rng.standard_normal(count)
        return [cases.constant("c", array.astype(np.float32)) for array in (scale, bias)]

    outer_x, inner_x, given = cases.port("x", x)
    inputs, arrays, added = [outer_x], [given], None
    if residual:
        outer, added, array = cases.port("r", rng.integers(0, 200, (n, outputs, *out)).astype(x.dtype))
        inputs.append(outer)
        arrays.append(array)
    outer_y, y, _ = cases.port("y", np.zeros((n, outputs, *out), x.dtype))
    dtype, layout = (DType.U8, Layout.C4) if integer else (DType.F32, Layout.PLAIN)
    between = Tensor("between", dtype, tuple(map(dim, (n, channels, *out))), layout)
    own = [cases.constant("w", first.constants["weights"]), *constants(channels, 0.05 / kernel**2)]
    packed = {key: cases.constant(key, array) for key, array in second.constants.items()}
    rest = [packed["weights"], *constants(outputs, 0.002 / channels), added, packed.get("index"), packed.get("start")]
    depthwise = {**first.attributes, **FIRST, "strides": [stride] * 2, "pads": pads}
    pointwise = {
        **second.attributes,
        **SECOND,
        **({"residual_scale": 0.07, "residual_zero_point": 3} if residual else {}),
    }
    apart = [
        Op("depthwise", "first", [inner_x, *own], [between], depthwise),
        Op("conv", "second", [between, *rest], [y], pointwise),
    ]
    joined = {f"first_{key}": value for key, value in depthwise.items()} | pointwise
    as_one = [Op("separable", "layer", [inner_x, *own, *rest], [y], joined)]
    level = Isa[isa.partition("_on_")[0].upper()]
    return Plan(level, inputs, [outer_y], apart), Plan(level, inputs, [outer_y], as_one), arrays


def check(run_plan, isa: str, threads: int, x: np.ndarray, *layer, **more) -> None:
    """Bytes are the same; in float32 a pixel may be added up by another kernel, with another rounding."""
    apart, as_one, arrays = plans(x, *layer, **more, isa=isa)
    (want,) = run_plan(apart, arrays, threads=threads, isa=isa)
    (got,) = run_plan(as_one, arrays, threads=threads, isa=isa)
    if x.dtype == np.uint8:
        np.testing.assert_array_equal(got, want)
        assert want.std() > 1  # so that they say something
    else:
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max(initial=1))


def values(shape: Sequence[int], dtype: str) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, shape).astype(dtype)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(
    ("shape", "layer"),
    [
        ((1, 8, 7, 7), (3, 20)),  # three vectors and a spare pixel
        ((2, 9, 14, 15), (5, 37, 2)),  # channels in no fours; two samples
        ((1, 132, 43, 44), (3, 8)),  # several strips, the last one with fewer rows
        ((1, 12, 16, 16), (7, 33)),
    ],
)
def test_the_numbers_of_both_operators_apart(run_plan, isa, dtype, shape, layer):
    check(run_plan, isa, 1, values(shape, dtype), *layer)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_blocks_and_residuals(run_plan, isa, dtype):
    width = 4 if dtype == "uint8" else 1
    for outputs in (4, 1):
        check(run_plan, isa, 1, values((1, 40, 9, 12), dtype), 3, 24, block=(width, outputs))
    check(run_plan, isa, 1, values((1, 40, 9, 12), dtype), 3, 24, residual=True)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=20)
@given(
    st.sampled_from(["uint8", "float32"]),
    st.tuples(st.integers(1, 2), st.integers(1, 70), st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([1, 3, 5, 7]),
    st.integers(1, 40),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([1, 3]),
)
def test_drawn_shapes(run_plan, isa, dtype, shape, kernel, outputs, stride, threads):
    apart, as_one, arrays = plans(values(shape, dtype), kernel, outputs, stride, isa=isa)
    (want,) = run_plan(apart, arrays, threads=threads, isa=isa)
    (got,) = run_plan(as_one, arrays, threads=threads, isa=isa)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=0 if dtype == "uint8" else 1e-5 * np.abs(want).max(initial=1))


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({"kernel": [3, 3], "pads": [1] * 4}, "too few weights"),
        ({"strides": [2, 2]}, "pixels along a dim"),
        ({"group": 2}, "one group"),
        ({"first_kernel": [5, 3]}, "pixels along a dim"),
        ({"first_kernel": [1 << 24, 1 << 24]}, "pixels along a dim|too large"),
        ({"first_strides": [0, 1]}, "out of range"),
        ({"first_y_scale": -1.0}, "not a positive number"),
        ({"first_activation": "x"}, "no activation"),
        ({"y_scale": 0.0}, "not a positive number"),
    ],
)
def test_hostile_attributes_are_refused(run_plan, native, attributes, why):
    _, plan, arrays = plans(values((1, 16, 9, 9), "uint8"), 3, 16)
    plan.ops[0].attributes = {**plan.ops[0].attributes, **attributes}
    with pytest.raises(native.NativeError, match=f"separable layer.*({why})"):
        run_plan(plan, arrays)


def test_operands_that_do_not_fit_are_refused(run_plan, native):
    _, plan, arrays = plans(values((1, 8, 9, 9), "uint8"), 3, 16)
    whole = list(plan.ops[0].inputs)
    for kept, why in (
        (whole[:4], "weights of two layers"),
        (whole * 2, "weights of two layers"),
        ([*whole[:4], None], "x and weights"),
    ):
        plan.ops[0].inputs = kept
        with pytest.raises(native.NativeError, match=why):
            run_plan(plan, arrays)
    for place in (1, 4):  # too few bytes of either layer's
        cut = cases.constant("w", np.zeros(8, np.int8))
        plan.ops[0].inputs = [cut if index == place else tensor for index, tensor in enumerate(whole)]
        with pytest.raises(native.NativeError, match="too few weights"):
            run_plan(plan, arrays)


def test_an_empty_output_takes_no_memory(run_plan):
    """A dim of 0 leaves the others without a bound."""
    _, plan, _ = plans(values((1, 4, 1, 1), "float32"), 3, 4)
    for dims in ((1 << 40, 0), (0, 1 << 40)):
        for tensor in (*plan.inputs, *plan.outputs):
            tensor.dims = (dim(1), dim(4), *map(dim, dims))
            tensor.storage.size_bytes = tensor.size_bytes
        (y,) = run_plan(plan, [np.zeros((1, 4, *dims), np.float32)])
        assert y.shape == (1, 4, *dims)
