"""`unary`: every function against float64, over the whole range of float32, on each instruction set."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

_LEAST_NORMAL = 2.0**-126
ISAS = ("generic", "avx2", "avx512", "neon", "vec4", "vec4_on_riscv64", "vec4_on_wasm32")
_erf = np.vectorize(math.erf, otypes=[float])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    power = np.exp(-np.abs(x))
    return np.where(x < 0, power, 1) / (1 + power)


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0),
    "clip": lambda x: np.clip(x, np.float32(-0.5), np.float32(2.5)),
    "gelu": lambda x: x * (0.5 + 0.5 * _erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: x * _sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)),
    "silu": lambda x: x * _sigmoid(x),
    "sigmoid": _sigmoid,
    "hardsigmoid": lambda x: np.clip(np.float64(np.float32(0.2)) * x + 0.5, 0, 1),
    "hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "tanh": np.tanh,
    "elu": lambda x: np.where(x < 0, np.float32(0.7) * np.expm1(np.minimum(x, 0)), x),
    "leakyrelu": lambda x: np.where(x < 0, np.float32(0.1) * x, x),
    "softplus": _softplus,
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "erf": _erf,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x,
    "neg": lambda x: -x,
    "abs": np.abs,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
    "sign": np.sign,
    "sin": np.sin,
    "cos": np.cos,
}
PARAMETERS = {
    "clip": {"alpha": -0.5, "beta": 2.5},
    "hardsigmoid": {"alpha": 0.2, "beta": 0.5},
    "elu": {"alpha": 0.7},
    "leakyrelu": {"alpha": 0.1},
}
# Their left tail is a difference: relative to x, not to themselves.
RELATIVE_TO_X = {"gelu", "gelu_tanh", "hardswish", "hardsigmoid"}
EXACT = {"relu", "clip", "neg", "abs", "floor", "ceil", "round", "sign"}


def samples() -> np.ndarray:
    """Every exponent, dense where functions bend, the special values."""
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 2**32, 20000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    special = [
        0.0,
        -0.0,
        np.inf,
        -np.inf,
        np.nan,
        1e-45,
        -1e-45,
        1.1754944e-38,
        3.4e38,
        -3.4e38,
        0.5,
        1.5,
        2.5,
        -0.5,
        -2.5,
    ]
    near = [np.linspace(low, high, 8001, dtype=np.float32) for low, high in ((-1, 1), (-12, 12), (-110, 110))]
    return np.concatenate([bits[~np.isnan(bits)], np.array(special, np.float32), *near])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_is_within_four_ulp(run_op: Any, name: str, isa: str) -> None:
    x = samples()
    if isa == "vec4":  # NEON of 32 bits takes what is no normal number for zero, and gives zero for it
        x[np.abs(x) < _LEAST_NORMAL] = 0
    y = run_op("unary", [x], [("float32", x.shape)], {"function": name, **PARAMETERS.get(name, {})}, isa=isa)[0]
    with np.errstate(all="ignore"):
        wide = FUNCTIONS[name](x.astype(np.float64))
        want = wide.astype(np.float32)
        np.testing.assert_array_equal(np.isnan(y), np.isnan(want))
        huge = np.isinf(want) & (np.abs(wide) < 3.5e38)  # rounds to infinity: the largest number is as near
        np.testing.assert_array_equal(np.isinf(y) | huge, np.isinf(want))
        finite = np.isfinite(want) & np.isfinite(y)
        scale = np.maximum(np.abs(wide), np.abs(x) if name in RELATIVE_TO_X else 0)
        if name == "hardsigmoid":
            scale = np.maximum(scale, 0.5)
        least = (_LEAST_NORMAL if isa == "vec4" else 2.0**-149) * np.maximum(
            np.abs(x), 1
        )  # a factor may be no normal number
        ulps = (np.abs(y - wide) / np.maximum(scale * 2.0**-23, least))[finite]
    assert ulps.max() <= (0 if name in EXACT else 4), x[finite][np.argmax(ulps)]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("in_place", [False, True])
def test_sizes_around_a_vector(run_op: Any, isa: str, in_place: bool) -> None:
    for size in (0, 1, 7, 8, 9, 15, 16, 17, 33):
        x = np.linspace(-2, 3, size, dtype=np.float32)
        y = run_op("unary", [x], [("float32", (size,))], {"function": "relu"}, isa=isa, in_place=in_place)[0]
        np.testing.assert_array_equal(y, np.maximum(x, 0))


def test_threads_and_rank_zero(run_op: Any) -> None:
    x = np.linspace(-5, 5, 100_003, dtype=np.float32)
    y = run_op("unary", [x], [("float32", x.shape)], {"function": "abs"}, threads=2)[0]
    np.testing.assert_array_equal(y, np.abs(x))
    assert run_op("unary", [np.float32(-2).reshape(())], [("float32", ())], {"function": "abs"})[0] == 2


@pytest.mark.parametrize(
    ("inputs", "output", "attributes", "why"),
    [
        ([np.zeros(3, np.float32)], ("float32", (4,)), {"function": "relu"}, "equal counts"),
        ([np.zeros(3, np.float32)], ("float32", (3,)), {"function": "frob"}, "no such function"),
        ([np.zeros(3, np.float32)], ("float32", (3,)), {}, "no such function"),
        ([np.zeros(3, np.int32)], ("float32", (3,)), {"function": "relu"}, "float32"),
        ([], ("float32", (3,)), {"function": "relu"}, "inputs"),
        ([None], ("float32", (3,)), {"function": "relu"}, "lacks"),
    ],
)
def test_refusals(run_op: Any, native: Any, inputs: Any, output: Any, attributes: Any, why: str) -> None:
    with pytest.raises(native.NativeError, match=why):
        run_op("unary", inputs, [output], attributes)
