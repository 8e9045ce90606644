"""The order of weights that AVX2 may add in pairs: nothing is lost, no pair overflows, and most find a partner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.quantize import quantize
from edgewise.runtime.data import random_data
from edgewise.targets import find_device
from edgewise.targets.cpu import TARGET
from edgewise.targets.cpu.native.compile import compile_model
from edgewise.targets.cpu.native.pairing import paired_order
from edgewise.targets.cpu.native.plan import DType, Isa
from edgewise.targets.nodes import tensor_spec


def lines_of(lines: int, entries: int, spread: float, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((1, lines, entries, 16, 4)) * spread
    return np.clip(np.rint(values), -63, 63).astype(np.int8)


def chunks(dense: np.ndarray, index: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    """Of each line: its first entry, how many of its entries are in pairs, and where each entry was."""
    found, at = [], 0
    for first in range(0, dense.shape[2], 128):
        count = min(128, dense.shape[2] - first)
        found += [(first, 2 * int(row[at]), row[at + 1 : at + 1 + count]) for row in index]
        at += 1 + count
    assert at == index.shape[1]
    return found


@given(st.integers(1, 5), st.integers(1, 300), st.floats(1, 40), st.integers(0, 99))
def test_weights_stay_the_same_and_pairs_fit_16_bits(lines: int, entries: int, spread: float, seed: int) -> None:
    dense = lines_of(lines, entries, spread, seed)
    made = paired_order(dense)
    if made is None:
        return
    assert made.index.shape[0] == lines and made.index.dtype == np.uint8
    for number, (first, paired, was) in enumerate(chunks(dense, made.index)):
        line = number % lines
        assert sorted(was) == list(range(len(was)))
        there = made.weights[0, line, first : first + len(was)]
        np.testing.assert_array_equal(there, dense[0, line, first : first + len(was)][was])
        four = there[:paired].astype(int).reshape(-1, 2, 16, 2, 2)
        for sign in (1, -1):
            assert np.maximum(sign * four, 0).sum((1, 4)).max(initial=0) <= 128


def test_nearly_all_of_weights_like_trained_ones_find_a_partner() -> None:
    dense = lines_of(8, 384, 14.0, 0)
    made = paired_order(dense)
    assert made is not None
    assert sum(paired for _, paired, _ in chunks(dense, made.index)) > 0.98 * 8 * 384


def test_heavy_ones_meet_light_ones() -> None:
    """Neighbours do not fit; each heavy entry fits a light one."""
    dense = np.zeros((1, 1, 64, 16, 4), np.int8)
    dense[:, :, :32] = 63
    made = paired_order(dense)
    assert made is not None and made.index[0, 0] == 32


def test_without_pairs_weights_stay_as_they_are() -> None:
    assert paired_order(np.full((1, 3, 40, 16, 4), 60, np.int8)) is None
    assert paired_order(lines_of(2, 1, 10.0, 0)) is None


@pytest.mark.parametrize(
    ("isa", "ordered"),
    [(Isa.AVX2, True), (Isa.AVX512, True), (Isa.AVX512VNNI, False), (Isa.GENERIC, False), (Isa.NEON, False)],
)
def test_layers_are_ordered_where_there_is_no_vnni(
    isa: Isa, ordered: bool, graph_maker: Any, run_native: Callable[..., Any], sample: Callable[..., Any]
) -> None:
    g = graph_maker(3)
    g.add("MatMul", ["x", g.weights("w", 96, 40)], "y")
    model = g.model({"x": [1, 24, 96]}, {"y": [1, 24, 40]})
    data = random_data([tensor_spec(value) for value in model.graph.inputs], 4, seed=0)
    spec = TARGET.quantization("int8", find_device("x86-64-v3", "cpu"))
    model = quantize(model, spec, data, method="minmax", samples=4, allow_random=True).model
    (layer,) = [op for op in compile_model(model, isa).plan.ops if op.op == "conv"]
    index = layer.inputs[5] if len(layer.inputs) > 5 else None
    assert (index is not None and index.dtype is DType.U8) is ordered
    inputs = sample(model)
    for there, other in zip(run_native(model, inputs), run_native(model, inputs, isa=isa), strict=True):
        np.testing.assert_array_equal(there, other)
