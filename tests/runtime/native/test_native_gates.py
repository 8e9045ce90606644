"""`recurrent` against numpy in float64, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ISAS = ("generic", "avx2", "avx512", "neon", "vec4")
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
FUNCTIONS = {"f": "sigmoid", "g": "tanh", "h": "softsign"}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def step(kind: str, x: np.ndarray, r: np.ndarray, h: np.ndarray, c: np.ndarray, more: Any) -> tuple[Any, Any]:
    """The next states of one row: x [gates, units], r [gates, units, units]."""
    if kind == "rnn":
        return sigmoid(x[0] + r[0] @ h), c
    if kind == "gru":
        z, gate = sigmoid(x[0] + r[0] @ h), sigmoid(x[1] + r[1] @ h)
        after = more.get("after")
        n = np.tanh(x[2] + (r[2] @ (gate * h) if after is None else gate * (r[2] @ h + after)))
        return (1 - z) * n + z * h, c
    p = more.get("peepholes", np.zeros((3, len(h))))
    total = x + r @ h
    cell = sigmoid(total[2] + p[2] * c) * c + sigmoid(total[0] + p[0] * c) * np.tanh(total[3])
    return sigmoid(total[1] + p[1] * cell) * cell / (1 + np.abs(cell)), cell


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=15)
@given(data=st.data())
def test_recurrent(run_op: Any, isa: str, data: Any) -> None:
    kind = data.draw(st.sampled_from(sorted(GATES)))
    steps, rows, hidden = data.draw(st.integers(0, 4)), data.draw(st.integers(1, 6)), data.draw(st.integers(1, 80))
    optional = data.draw(st.booleans(), "after, peepholes"), data.draw(st.booleans(), "lengths, states")
    reverse, threads = data.draw(st.booleans()), data.draw(st.sampled_from([1, 2]))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    gates, units = GATES[kind], -(-hidden // 16) * 16

    def drawn(*shape: int) -> np.ndarray:
        return random.uniform(-1, 1, shape).astype(np.float32)

    def padded(array: np.ndarray) -> np.ndarray:
        return np.pad(array, [*[(0, 0)] * (array.ndim - 1), (0, units - hidden)])

    x, r = drawn(steps, rows, gates, hidden), drawn(gates, hidden, hidden)
    after = drawn(hidden) if kind == "gru" and optional[0] else None
    peepholes = drawn(3, hidden) if kind == "lstm" and optional[0] else None
    lengths = random.integers(0, steps + 2, rows).astype(np.int32) if optional[1] else None
    h, c = (drawn(rows, hidden) if optional[1] and (kind == "lstm" or not i) else None for i in range(2))
    panels = padded(r.transpose(0, 2, 1)).reshape(gates, hidden, units // 16, 16).transpose(0, 2, 1, 3)
    inputs = [
        padded(x).reshape(steps, rows, gates * units), np.ascontiguousarray(panels).reshape(-1, hidden, 16),
        None if after is None else padded(after), None if peepholes is None else padded(peepholes).reshape(-1), lengths, h, c,
    ]  # fmt: skip
    state = np.zeros((rows, hidden)) if h is None else h.astype(np.float64)
    cell = np.zeros((rows, hidden)) if c is None else c.astype(np.float64)
    more = {"peepholes": peepholes} if peepholes is not None else {} if after is None else {"after": after}
    want = np.zeros((steps, rows, hidden))
    for t in reversed(range(steps)) if reverse else range(steps):
        for row in range(rows):
            if lengths is None or t < lengths[row]:
                state[row], cell[row] = step(kind, x[t, row].astype(np.float64), r, state[row], cell[row], more)
                want[t, row] = state[row]
    wanted = [want, state, cell][: 3 if kind == "lstm" else 2]
    attributes = {"kind": kind, "reverse": int(reverse), "after_reset": int(after is not None), **FUNCTIONS}
    got = run_op("recurrent", inputs, [("float32", one.shape) for one in wanted], attributes, isa=isa, threads=threads)
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


X, R, B = np.zeros((2, 3, 48), np.float32), np.zeros((3, 5, 16), np.float32), np.zeros(16, np.float32)
GRU = {"kind": "gru", **FUNCTIONS}


@pytest.mark.parametrize(
    ("inputs", "attributes", "said"),
    [
        ([X], GRU, "takes x, weights"),
        ([X, R], GRU | {"kind": "elman"}, "no such kind"),
        ([X, R], GRU | {"g": "exp"}, "no such function g"),
        ([X, R], GRU | {"clip": -1.0}, "less than 0"),
        ([X, R], GRU | {"clip": float("nan")}, "less than 0"),
        ([X, R[:, :0]], GRU, "no state"),
        ([X, R[:2]], GRU, "other panels"),
        ([X[..., :32], R], GRU, "other gates"),
        ([X, R], GRU | {"kind": "lstm"}, "other panels"),
        ([X, R, B], GRU, "input 2 that does not fit"),
        ([X, R, B[:5]], GRU | {"after_reset": 1}, "input 2 that does not fit"),
        ([X, R, None, None, np.zeros(2, np.int32)], GRU, "input 4 that does not fit"),
        ([X, R, None, None, np.zeros(3, np.int64)], GRU, "input 4 that does not fit"),
        ([X, R, None, None, None, np.zeros((2, 5), np.float32)], GRU, "input 5 that does not fit"),
        ([X, R, None, None, None, None, np.zeros((3, 5), np.float32)], GRU, "input 6 that does not fit"),
    ],
)
def test_refused(run_op: Any, native: Any, inputs: list[Any], attributes: dict[str, Any], said: str) -> None:
    with pytest.raises(native.NativeError, match=said):
        run_op("recurrent", inputs, [("float32", (2, 3, 5)), ("float32", (3, 5))], attributes)


@pytest.mark.parametrize("shapes", [[(2, 3, 5)], [(2, 3, 6), (3, 5)], [(2, 3, 5), (2, 5)]])
def test_outputs_that_do_not_fit(run_op: Any, native: Any, shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(native.NativeError, match=r"gives y and the last|other dims"):
        run_op("recurrent", [X, R], [("float32", shape) for shape in shapes], GRU)
