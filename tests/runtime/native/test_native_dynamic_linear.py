"""`dynamic_linear` against numpy: rows rounded by ranges of their own, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.targets.cpu.native.coded import Rows

ISAS = ("generic", "avx2", "avx512", "neon", "vec4")


def rounded(x: np.ndarray, group: int) -> np.ndarray:
    """What rows [N, C, P] stand for once each group of channels is in uint8; in float32 up to the integers, as ONNX says it."""
    n, c, p = x.shape
    parts = x.reshape(n, c // group, group, p)
    most, least = np.maximum(parts.max(2), np.float32(0)), np.minimum(parts.min(2), np.float32(0))
    scale = np.maximum((most - least) / np.float32(255), np.float32(1e-30))[:, :, None]
    zero = np.rint(-least[:, :, None] / scale)
    integers = np.clip(np.rint(parts / scale) + zero, 0, 255)
    return np.asarray(((integers - zero) * scale.astype(np.float64)).reshape(n, c, p))


def operands(rng: Any, outputs: int, channels: int, group: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Weights as real numbers [M, C], and packed."""
    integers = rng.integers(-127, 128, (outputs, channels))
    scale = rng.uniform(0.001, 0.01, (outputs, channels // group)).astype(np.float32)
    rows = Rows((integers + 128).astype(np.uint8), scale.astype(np.float64), np.full(scale.shape, 128.0), group, 8)
    return integers * np.repeat(scale.astype(np.float64), group, 1), rows.at_run(np.ones(outputs), group).constants


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=25)
@given(data=st.data())
def test_dynamic_linear(run_op: Any, isa: str, data: Any) -> None:
    groups, group = data.draw(st.integers(1, 4)), data.draw(st.sampled_from([4, 16, 20, 32]))
    if groups == 1:
        group = data.draw(st.integers(1, 70))
    outputs, samples = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 3))
    pixels = data.draw(st.one_of(st.integers(1, 20), st.integers(21, 150)))
    activation, residual = data.draw(st.sampled_from(["", "relu", "gelu"])), data.draw(st.booleans())
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = (rng.normal(size=(samples, groups * group, pixels)) * rng.choice([0, 1, 1e3], (1, groups * group, 1))).astype(
        np.float32
    )
    weights, constants = operands(rng, outputs, groups * group, group)
    bias = rng.normal(size=outputs).astype(np.float32)
    want = np.einsum("mc,ncp->nmp", weights, rounded(x, group)) + bias[:, None]
    if activation == "relu":
        want = np.maximum(want, 0)
    if activation == "gelu":
        want = np.asarray(want / (1 + np.exp(np.minimum(-1.5957691216 * (want + 0.044715 * want**3), 700.0))))
    other = rng.normal(size=want.shape).astype(np.float32) if residual else None
    inputs = [x, ("const", constants["weights"]), None, ("const", bias), other, ("const", constants["terms"])]
    attributes = {"group": group, "activation": activation.replace("gelu", "gelu_tanh")}
    threads = data.draw(st.sampled_from([1, 3]))
    (got,) = run_op("dynamic_linear", inputs, [("float32", want.shape)], attributes, isa=isa, threads=threads)
    want = want if other is None else want + other
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * (1 + np.abs(want).max()))


X = np.zeros((1, 64, 3), np.float32)
W, T = np.zeros((1, 16, 16, 4), np.int8), np.zeros((1, 2, 2, 16), np.float32)


@pytest.mark.parametrize(
    ("x", "weights", "terms", "attributes", "said"),
    [
        (X, ("const", W), None, {"group": 32}, "wants x, weights and terms"),
        (X.astype(np.uint8), ("const", W), ("const", T), {"group": 32}, "plain float32"),
        (X, W, ("const", T), {"group": 32}, "constant int8"),
        (X, ("const", W.astype(np.float32)), ("const", T), {"group": 32}, "constant int8"),
        (X, ("const", W), T, {"group": 32}, "constant int8"),
        (X, ("const", W), ("const", T), {}, "multiple of 4 that divides"),
        (X, ("const", W), ("const", T), {"group": -32}, "multiple of 4 that divides"),
        (X, ("const", W), ("const", T), {"group": 2}, "multiple of 4 that divides"),
        (X, ("const", W), ("const", T), {"group": 48}, "multiple of 4 that divides"),
        (X, ("const", W[:, :15]), ("const", T), {"group": 32}, "too few weights"),
        (X, ("const", W), ("const", T), {"group": 16}, "too few weights"),
        (X, ("const", W), ("const", T), {"group": 32, "kernel": [2]}, "as many pixels|pixels along"),
        (np.zeros((1, 60004, 1), np.float32), ("const", W), ("const", T), {"group": 4}, "too many channels"),
    ],
)
def test_refused(
    run_op: Any, native: Any, x: np.ndarray, weights: Any, terms: Any, attributes: dict[str, Any], said: str
) -> None:
    with pytest.raises(native.NativeError, match=said):
        run_op("dynamic_linear", [x, weights, None, None, None, terms], [("float32", (1, 16, x.shape[2]))], attributes)


def test_more_outputs_than_weights_are_refused(run_op: Any, native: Any) -> None:
    with pytest.raises(native.NativeError, match="too few weights"):
        run_op(
            "dynamic_linear",
            [X, ("const", W), None, None, None, ("const", T)],
            [("float32", (1, 17, 3))],
            {"group": 32},
        )
