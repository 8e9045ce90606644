"""Columns and samples give back what was put in, from memory and from a file, and walks over either agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgewise.quantize.keeping import Column, Samples
from edgewise.quantize.walking import Walk

Make = Callable[..., Any]


@pytest.mark.parametrize("in_memory", [8 << 20, 16])
def test_a_column_gives_back_each_array(in_memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgewise.quantize.keeping._IN_MEMORY", in_memory)
    rng = np.random.default_rng(0)
    given = [
        rng.normal(size=(2, 3)).astype(np.float32),
        np.arange(5),
        np.float32(3),
        np.zeros((0, 4), np.int8),
        rng.random((1, 3)) > 0.5,
    ]
    column = Column(given[:2])
    for array in given[2:]:
        column.append(np.asarray(array))
        assert np.array_equal(column[0], given[0])  # reading in between does not move where the next one goes
    assert len(column) == 5
    for found, wanted in zip(column, given, strict=True):
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype == np.asarray(wanted).dtype and found.shape == np.shape(wanted)
    np.testing.assert_array_equal(column[-1], given[-1])
    assert [len(part) for part in (column[1::2], column[:2])] == [2, 2]
    with pytest.raises(IndexError):
        column[5]


def test_samples_are_the_same_at_every_pass() -> None:
    rng = np.random.default_rng(0)
    samples = Samples({"x": rng.normal(size=2)} | ({"m": np.arange(n)} if n else {}) for n in range(3))
    assert len(samples) == 3 and [sorted(sample) for sample in samples] == [["x"], ["m", "x"], ["m", "x"]]
    np.testing.assert_array_equal(samples[2]["m"], [0, 1])
    np.testing.assert_array_equal([sample["x"] for sample in samples], [sample["x"] for sample in samples[:]])


def test_a_walk_from_files_is_a_walk_in_memory(graph: Make, normal: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model = graph(
        "(float[4,8] x, float[8,8] w) => (float[4,8] y) { a = MatMul(x, w)  b = Relu(a)  y = Add(b, x) }",
        {"w": np.eye(8, dtype=np.float32)},
    )
    samples = [sample.inputs for sample in normal(5, (4, 8))]
    inside = list(Walk(model, samples).values([model.graph.outputs[0]])[0])
    monkeypatch.setattr("edgewise.quantize.keeping._IN_MEMORY", 16)
    outside = list(Walk(model, Samples(samples)).values([model.graph.outputs[0]])[0])
    np.testing.assert_array_equal(inside, outside)
