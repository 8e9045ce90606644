"""`attention` and `matmul` against PyTorch in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

FLOAT_ISAS = ("generic", "avx2", "avx512", "neon", "vec4")
ISAS = (*FLOAT_ISAS, "avx512vnni")
QUICK = settings(max_examples=8)


def normal(shape: Any, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def reference(q: Any, k: Any, v: Any, mask: Any, heads: int, scale: float) -> Any:
    def split(x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(x.astype(np.float64)).unflatten(1, (heads, -1))

    scores = torch.einsum("bhdq,bhdk->bhqk", split(q), split(k)) * scale
    if mask is not None:
        scores = scores + torch.from_numpy(np.tile(mask, (q.shape[0] // mask.shape[0], 1, 1, 1)).astype(np.float64))
    weights = torch.softmax(scores, -1)
    return weights, torch.einsum("bhqk,bhdk->bhdq", weights, split(v)).flatten(1, 2).numpy()


TOKENS = st.integers(1, 9) | st.sampled_from([15, 16, 17, 31, 33, 49, 64, 65, 197])


@pytest.mark.parametrize("isa", FLOAT_ISAS)
@QUICK
@given(data=st.data())
def test_float_attention(run_op: Any, isa: str, data: Any) -> None:
    batch, heads = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    depth, value_depth = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    queries, keys = data.draw(TOKENS), data.draw(TOKENS)
    q, k, v = (
        normal((batch, heads * depth, queries)),
        normal((batch, heads * depth, keys), 1),
        normal((batch, heads * value_depth, keys), 2),
    )
    mask = None
    if data.draw(st.booleans()):
        first = data.draw(st.sampled_from([1, batch, 2 if batch % 2 == 0 else 1]))
        dims = [first, *(data.draw(st.sampled_from([1, size])) for size in (heads, queries, keys))]
        mask = normal(dims, 3)
    transposed = data.draw(st.booleans())
    given_mask = None if mask is None else np.ascontiguousarray(mask.swapaxes(2, 3)) if transposed else mask
    attributes = {"heads": heads, "scale": 0.37, "mask_transposed": int(transposed)}
    inputs = [q, k, v] if mask is None else [q, k, v, given_mask]
    threads = data.draw(st.sampled_from([1, 2]))
    got = run_op(
        "attention", inputs, [("float32", (batch, heads * value_depth, queries))], attributes, isa=isa, threads=threads
    )[0]
    np.testing.assert_allclose(got, reference(q, k, v, mask, heads, 0.37)[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("isa", FLOAT_ISAS)
@QUICK
@given(data=st.data())
def test_matmul(run_op: Any, isa: str, data: Any) -> None:
    m, k, n = (
        data.draw(st.integers(0, 9)),
        data.draw(st.integers(0, 20)),
        data.draw(st.integers(0, 5) | st.sampled_from([15, 16, 17, 32, 33, 70])),
    )
    batches = data.draw(st.lists(st.integers(1, 3), max_size=2))
    batch_a, batch_b = ([1 if data.draw(st.booleans()) else size for size in batches] for _ in range(2))
    a, b = normal((*batch_a, m, k)), normal((*batch_b, k, n), 1)
    want = np.broadcast_to(2 * a.astype(np.float64) @ b, (*np.broadcast_shapes(tuple(batch_a), tuple(batch_b)), m, n))
    swap_a, swap_b = data.draw(st.booleans()), data.draw(st.booleans())
    left = np.ascontiguousarray(a.swapaxes(-1, -2)) if swap_a else a
    right = np.ascontiguousarray(b.swapaxes(-1, -2)) if swap_b else b
    attributes = {"transpose_a": int(swap_a), "transpose_b": int(swap_b), "alpha": 2.0}
    got = run_op(
        "matmul",
        [left, right],
        [("float32", want.shape)],
        attributes,
        isa=isa,
        threads=data.draw(st.sampled_from([1, 2])),
    )[0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


Q, K = np.zeros((2, 8, 5), np.float32), np.zeros((2, 8, 7), np.float32)
MASK = np.zeros((1, 1, 5, 7), np.float32)
HOSTILE: list[tuple[str, list[Any], tuple[Any, ...], dict[str, Any]]] = [
    ("attention", [Q, K, K], ("float32", (2, 8, 5)), {"heads": 3}),
    ("attention", [Q, K, K], ("float32", (2, 8, 5)), {"heads": 0}),
    ("attention", [Q, K, K], ("float32", (2, 8, 5)), {"heads": -(2**63)}),
    ("attention", [Q, K, K], ("float32", (2, 8, 6)), {"heads": 2}),
    ("attention", [Q, K, K], ("float32", (2, 4, 5)), {"heads": 2}),
    ("attention", [Q, K, K], ("float32", (1, 8, 5)), {"heads": 2}),
    ("attention", [Q, K, Q], ("float32", (2, 8, 5)), {"heads": 2}),
    ("attention", [Q, K], ("float32", (2, 8, 5)), {"heads": 2}),
    ("attention", [Q, K[:, :, :0], K[:, :, :0]], ("float32", (2, 8, 5)), {"heads": 2}),
    ("attention", [Q, K, K, MASK[0]], ("float32", (2, 8, 5)), {"heads": 2}),
    ("attention", [Q, K, K, MASK[:, :, :4]], ("float32", (2, 8, 5)), {"heads": 2}),
    ("attention", [Q, K, K, MASK], ("float32", (2, 8, 5)), {"heads": 2, "mask_transposed": 1}),
    ("attention", [Q, K, K, np.zeros((0, 1, 5, 7), np.float32)], ("float32", (2, 8, 5)), {"heads": 2}),
    ("attention", [Q, K, K, MASK.astype(np.int64)], ("float32", (2, 8, 5)), {"heads": 2}),
    ("attention", [Q, K, K], ("uint8", (2, 8, 5)), {"heads": 2, "y_scale": 0.1}),
    ("matmul", [Q, K], ("float32", (2, 8, 7)), {}),
    ("matmul", [Q, K], ("float32", (2, 5, 7)), {}),
    ("matmul", [Q, K], ("float32", (2, 5, 8)), {"transpose_a": 1}),
    ("matmul", [Q, K], ("float32", (1, 5, 7)), {"transpose_a": 1}),
    ("matmul", [Q, K], ("int64", (2, 5, 7)), {"transpose_a": 1}),
    ("matmul", [Q[0, 0], K], ("float32", (2, 5, 7)), {}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "inputs", "output", "attributes"), HOSTILE)
def test_hostile_files_are_refused(
    run_op: Any, native: Any, op: str, inputs: Any, output: Any, attributes: Any
) -> None:
    with pytest.raises(native.NativeError):
        run_op(op, inputs, [output], attributes)


QUANTIZED = {
    "q_scale": 0.021,
    "q_zero_point": 117,
    "k_scale": 0.017,
    "k_zero_point": 131,
    "v_scale": 0.013,
    "v_zero_point": 90,
}
SIGNED = {key: value - 128 if key.endswith("point") else value for key, value in QUANTIZED.items()}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@QUICK
@given(data=st.data())
def test_attention_of_bytes(run_op: Any, isa: str, dtype: str, data: Any) -> None:
    batch, heads = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3))
    depth, value_depth = (data.draw(st.sampled_from([4, 8, 16, 64, 5, 7])) for _ in range(2))
    queries, keys = data.draw(TOKENS), data.draw(TOKENS)
    generator = np.random.default_rng(data.draw(st.integers(0, 5)))
    low = -128 if dtype == "int8" else 0
    shapes = ((batch, heads * depth, queries), (batch, heads * depth, keys), (batch, heads * value_depth, keys))
    q, k, v = (generator.integers(low, low + 256, shape).astype(dtype) for shape in shapes)
    attributes: dict[str, Any] = dict(QUANTIZED if dtype == "uint8" else SIGNED)
    real = [
        (x.astype(np.float64) - attributes[f"{name}_zero_point"]) * np.float32(attributes[f"{name}_scale"])
        for name, x in (("q", q), ("k", k), ("v", v))
    ]
    mask = normal((1, heads, queries, keys), 3) if data.draw(st.booleans()) else None
    scale = 0.05
    weights, want = reference(*real, mask, heads, scale)
    attributes |= {"heads": heads, "scale": scale, "y_scale": 0.0091, "y_zero_point": 3}
    kind = data.draw(st.sampled_from(["", "u8", "s8"]))
    if kind:
        attributes |= {"p_scale": 0.0037, "p_zero_point": -128 if kind == "s8" else 0, "p_signed": int(kind == "s8")}
        steps = torch.clamp(torch.round(weights / np.float32(0.0037)), max=255) * np.float32(0.0037)
        want = (
            torch.einsum("bhqk,bhdk->bhdq", steps, torch.from_numpy(real[2]).unflatten(1, (heads, -1)))
            .flatten(1, 2)
            .numpy()
        )
    inputs = [("c4", q), ("c4", k), ("c4", v)] + ([] if mask is None else [mask])
    shape, threads = (batch, heads * value_depth, queries), data.draw(st.sampled_from([1, 2]))
    got = run_op("attention", inputs, [("float32", shape)], attributes, isa=isa, threads=threads)[0]
    off = np.abs(got - want)
    # A weight that is rounded the other way moves its query's results, each by up to 1.6 of its steps times a value.
    assert off.max() <= 0.0037 * 3
    assert np.count_nonzero(np.any(off > 1e-4, axis=1)) <= max(1, 0.01 * batch * queries)
    for y_dtype, limits in (("uint8", (0, 255)), ("int8", (-128, 127))):
        y = run_op("attention", inputs, [(y_dtype, shape, "c4")], attributes, isa=isa, threads=threads)[0]
        assert np.abs(y - np.clip(np.round(got / np.float32(0.0091)) + 3, *limits)).max() <= 1
