"""The operator conv with weights in bfloat16, on every instruction set, against numpy with the same roundings."""

from __future__ import annotations

from typing import Any

import conv_cases as cases
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.targets.cpu.native.packing import pack_brain

ISAS = ("generic", "avx2", "avx512", "avx512vnni", "avx512bf16", "neon", "vec4")
CASES = [
    ((2, 13, 197), (33, 13), {}),
    ((1, 64, 16), (70, 64), {}),
    ((3, 40), (10, 40), {}),
    ((1, 3, 23, 21), (8, 3, 7, 7), {"strides": [2, 2], "pads": [3, 3, 3, 3]}),
    ((2, 8, 14, 14), (20, 8, 3, 3), {"pads": [1, 1, 1, 1]}),
    ((1, 12, 7, 7), (24, 4, 3, 3), {"group": 3, "pads": [1, 1, 1, 1]}),
    ((1, 10, 7, 7), (24, 5, 3, 3), {"group": 2}),
    ((2, 5, 40), (6, 5, 4), {"strides": [3], "pads": [2, 1]}),
    ((1, 1, 8, 8), (1, 1, 2, 2), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ((1, 700, 14, 14), (8, 700, 3, 3), {"pads": [1, 1, 1, 1]}),  # more than a tile's part
]


def rounded(array: np.ndarray) -> np.ndarray:
    return array.astype(ml_dtypes.bfloat16).astype(np.float32)


def check(run_plan: Any, case: Any, isa: str, threads: int = 1) -> None:
    packed = pack_brain(case.weights, group=case.group)
    plan, arrays = cases.plan_of(case, isa, packed)
    got = run_plan(plan, arrays, isa=isa, threads=threads)[0]
    case.x, case.weights = rounded(case.x), rounded(case.weights)
    want = cases.expected(case)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=3e-5 * max(1.0, float(np.abs(want).max(initial=0))))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("x", "w", "more"), CASES)
def test_convolutions_and_products(run_plan: Any, isa: str, x: Any, w: Any, more: Any) -> None:
    check(run_plan, cases.float_case(x, w, **more), isa)
    check(run_plan, cases.float_case(x, w, **more), isa, threads=2)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=15)
@given(
    channels=st.integers(1, 9),
    outputs=st.integers(1, 40),
    size=st.integers(4, 12),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
)
def test_drawn(run_plan: Any, isa: str, channels: int, outputs: int, size: int, kernel: int, stride: int) -> None:
    case = cases.float_case(
        (1, channels, size, size), (outputs, channels, kernel, kernel), strides=[stride] * 2, pads=[1] * 4
    )
    check(run_plan, case, isa)


@pytest.mark.parametrize("isa", ISAS)
def test_numbers_that_round_oddly(run_plan: Any, isa: str) -> None:
    """Ties, what becomes infinite, infinities and NaN, each alone through a unit weight."""
    near = np.float32(1) + np.float32(2**-8) * np.arange(8, dtype=np.float32)
    odd = np.array([3.4e38, -3.4e38, np.inf, -np.inf, np.nan, 0.0, -1.5, 65536.7], np.float32)
    x = np.concatenate([near, -near, odd])[None, None]
    case = cases.float_case((1, 1, x.size), (1, 1))
    case.x, case.weights = x, np.ones((1, 1), np.float32)
    plan, arrays = cases.plan_of(case, isa, pack_brain(case.weights))
    np.testing.assert_array_equal(run_plan(plan, arrays, isa=isa)[0], rounded(x))


def test_weights_that_are_too_few_are_refused(run_plan: Any, native: Any) -> None:
    case = cases.float_case((1, 8, 9, 9), (8, 8, 3, 3))
    packed = pack_brain(case.weights)
    packed.constants["weights"] = np.ascontiguousarray(packed.constants["weights"][:, :, :-1])
    plan, arrays = cases.plan_of(case, packed=packed)
    with pytest.raises(native.NativeError, match="too few weights"):
        run_plan(plan, arrays)


def test_sparse_weights_are_refused(run_plan: Any, native: Any) -> None:
    case = cases.float_case((1, 8, 9, 9), (8, 8, 3, 3), block=(1, 4))
    plan, arrays = cases.plan_of(case)
    plan.ops[0].inputs[1] = cases.constant("weights", pack_brain(case.weights).constants["weights"])
    with pytest.raises(native.NativeError, match="dtype that fits x"):
        run_plan(plan, arrays)
