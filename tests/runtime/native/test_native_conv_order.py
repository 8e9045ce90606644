"""Dense 8-bit weights whose entries lie in pairs (pairing.py): every instruction set gives what numpy says, in whatever order they lie."""

from __future__ import annotations

import conv_cases as cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ISAS = ("generic", "avx2", "avx512", "avx512vnni", "neon", "neon_dotprod", "vec4")


def paired_case(x_shape, outputs, kernel=(), seed=0, spread=14.0, **more):
    """Weights of 7 bits, of which a few find no partner; sums as they are."""
    w_shape = (outputs, x_shape[1] // more.get("group", 1), *kernel)
    case = cases.int_case(x_shape, w_shape, seed, paired=True, **more)
    weights = np.random.default_rng(seed).standard_normal(w_shape) * spread
    case.weights = np.clip(np.rint(weights), -63, 63).astype(np.int8)
    return case


def pairs_of(case) -> int:
    """In the first chunk of the first line."""
    return int(cases.packed_of(case).constants["index"][0, 0])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("inputs", [8, 508, 512, 516, 1100])
@pytest.mark.parametrize("pixels", [1, 9, 52])
def test_sizes_around_chunks_and_tiles(run_plan, isa, threads, inputs, pixels):
    """508 to 516 inputs are 127 to 129 entries, a chunk being 128; up to four pixels are left over beside whole vectors."""
    case = paired_case((1, inputs, pixels), 36)
    assert pairs_of(case) > 0
    cases.check(run_plan, case, isa, threads)


@pytest.mark.parametrize("isa", ISAS)
def test_groups_kernels_and_padding(run_plan, isa):
    case = paired_case((2, 48, 9, 7), 40, (3, 3), group=2, pads=[1, 1, 1, 1], strides=[1, 2])
    case.attributes = {"x_zero_point": 9}
    assert pairs_of(case) > 0
    cases.check(run_plan, case, isa)


@pytest.mark.parametrize("isa", ISAS)
def test_tiles_in_parts_are_cut_between_chunks(run_plan, isa):
    """4,608 entries of two vectors do not fit the second cache at once."""
    cases.check(run_plan, paired_case((1, 2048, 6, 6), 20, (3, 3), pads=[1, 1, 1, 1]), isa)
    cases.check(run_plan, paired_case((1, 600, 12, 12), 20, (7, 7), pads=[3, 3, 3, 3]), isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_pairs_at_their_bounds(run_plan, isa, sign):
    """Four weights of 32 times 255 are all that 16 bits hold."""
    case = paired_case((1, 64, 24), 16)
    case.x[:], case.weights[:] = 255, sign * 32
    assert pairs_of(case) == 8
    cases.check(run_plan, case, isa)


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 300), st.integers(1, 12), st.integers(1, 12)),
    outputs=st.integers(1, 70), spread=st.floats(4, 30), seed=st.integers(0, 99), kernel=st.sampled_from([(1, 1), (3, 3)]),
)  # fmt: skip
@pytest.mark.parametrize("isa", ISAS)
def test_drawn_shapes(run_plan, isa, shape, outputs, spread, seed, kernel):
    cases.check(run_plan, paired_case(shape, outputs, kernel, seed, spread, pads=[kernel[0] // 2] * 4), isa)


def spoiled(how):
    plan, arrays = cases.plan_of(paired_case((1, 600, 9), 20))
    index = plan.ops[0].inputs[5].data.copy()
    plan.ops[0].inputs[5] = cases.constant("index", how(index))
    return plan, arrays


def with_byte(at: int, value: int):
    def change(index: np.ndarray) -> np.ndarray:
        index.reshape(-1)[at] = value
        return index

    return change


@pytest.mark.parametrize("at, value", [(0, 65), (0, 255), (1, 128), (128, 255), (129, 12), (130, 22), (-1, 22)])
def test_an_index_out_of_range_is_refused(run_plan, native, at, value):
    """600 inputs are a chunk of 128 entries and one of 22 in each of two lines."""
    with pytest.raises(native.NativeError, match="has an index out of range"):
        run_plan(*spoiled(with_byte(at, value)))


@pytest.mark.parametrize("how", [lambda index: index.ravel()[:-1], lambda index: index.astype(np.int32)])
def test_an_index_that_is_short_or_of_another_dtype_is_refused(run_plan, native, how):
    with pytest.raises(native.NativeError, match="an index of constant bytes"):
        run_plan(*spoiled(how))
