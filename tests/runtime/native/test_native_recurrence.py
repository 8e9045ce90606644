"""`recurrence` against numpy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ISAS = ("generic", "avx2", "avx512", "neon", "vec4")
SLOTS = ("a", "b", "a2", "b2", "start", "c", "u")


def reference(given: dict[str, np.ndarray], dims: tuple[int, ...], function: str) -> tuple[np.ndarray, np.ndarray]:
    """All results [steps, …] and the last state."""
    wide = {name: array.astype(np.float64) for name, array in given.items()}
    state = np.broadcast_to(wide.get("start", np.zeros(())), dims[1:])
    read = []
    for t in range(dims[0]):
        now = {name: array[t if len(array) > 1 else 0] for name, array in wide.items() if name != "start"}
        a, b, before = now["a"], now["b"], state
        a = np.exp(a * now["a2"]) if "a2" in now else a
        b = b * now["b2"] if "b2" in now else b
        state = np.broadcast_to(np.maximum(a + state, b) if function == "max" else a * state + b, dims[1:])
        if "c" in now:
            what = before + now["u"] * b if "u" in now else state
            read.append((now["c"] * what).sum(-2, keepdims=True))
        else:
            read.append(state)
    return np.stack(read), state


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=25)
@given(data=st.data())
def test_recurrence(run_op: Any, isa: str, data: Any) -> None:
    dims = (
        data.draw(st.integers(1, 6)),
        data.draw(st.integers(1, 3)),
        data.draw(st.integers(1, 5)),
        data.draw(st.integers(1, 150)),
    )
    function = data.draw(st.sampled_from(["add", "add", "max"]))
    optional = {"start"} if function == "max" else {"start", "a2", "b2", "c", "u"}
    wanted = {"a", "b"} | {name for name in sorted(optional) if data.draw(st.booleans(), name)}
    wanted -= set() if "c" in wanted else {"u"}
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    given: dict[str, np.ndarray] = {}
    for name in SLOTS:
        if name in wanted:
            whole = dims[1:] if name == "start" else dims
            # y has one key where they are summed, so an operand has to say how many there are.
            kept = [data.draw(st.booleans()) or (name == "b" and axis == len(whole) - 2) for axis in range(len(whole))]
            given[name] = random.uniform(
                -1, 1, [size if keep else 1 for size, keep in zip(whole, kept, strict=True)]
            ).astype(np.float32)
    want, last = reference(given, dims, function)
    threads = data.draw(st.sampled_from([1, 2]))
    inputs = [given.get(name) for name in SLOTS]
    got = run_op(
        "recurrence",
        inputs,
        [("float32", want.shape), ("float32", last.shape)],
        {"function": function},
        isa=isa,
        threads=threads,
    )
    np.testing.assert_allclose(got[0], want, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got[1], last, rtol=1e-4, atol=1e-4)


A = np.zeros((3, 2, 4), np.float32)


@pytest.mark.parametrize(
    ("inputs", "y", "attributes", "said"),
    [
        ([A], (3, 2, 4), {}, "takes a and b"),
        ([A, A], (3, 2, 4), {"function": "min"}, "no such function"),
        ([A, A[:2]], (3, 2, 4), {}, "does not broadcast"),
        ([A, A[0]], (3, 2, 4), {}, "as many axes"),
        ([A, A, None, None, None, A], (3, 2, 4), {}, "an axis that y keeps"),
        ([A, A, None, None, None, None, A], (3, 2, 4), {}, "u without c"),
        ([A, A, A], (3, 2, 4), {"function": "max"}, "function add alone"),
        ([A, A, None, A, None, A.astype(np.int32)], (3, 1, 4), {}, "float32"),
        ([np.zeros((1, 2000, 1), np.float32)] * 2 + [None] * 3 + [A[:1, :1]], (3, 1, 4), {}, "more than 1024"),
    ],
)
def test_refused(
    run_op: Any, native: Any, inputs: list[Any], y: tuple[int, ...], attributes: dict[str, Any], said: str
) -> None:
    with pytest.raises(native.NativeError, match=said):
        run_op("recurrence", inputs, [("float32", y)], attributes)
