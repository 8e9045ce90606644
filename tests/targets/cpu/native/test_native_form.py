"""Forms: what they say of memory must be what numpy makes of it."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.targets.cpu.native.builder import Builder
from edgewise.targets.cpu.native.compile import NotTakenError, compile_model
from edgewise.targets.cpu.native.form import Form, common_factors, quotient, same_size
from edgewise.targets.cpu.native.plan import Isa, dim, product

SIZES = st.lists(st.sampled_from([1, 2, 3, 4, 6, 8]), min_size=1, max_size=4)


def numbers(dims: list[int]) -> list:
    return [dim(one) for one in dims]


def seen(form: Form, memory: np.ndarray) -> np.ndarray:
    """The array that a form makes of bytes in memory."""
    sizes = [int(one.value) for one in form.memory]
    back = np.argsort(form.order) if form.order else []
    return memory.reshape(sizes).transpose(back).reshape([int(one.value) for one in form.dims])


@given(SIZES, st.randoms(use_true_random=False), st.integers(1, 4))
def test_views_are_what_numpy_makes_of_the_same_memory(dims: list[int], random, steps: int) -> None:
    memory = np.arange(prod(dims))
    form, array = Form.plain(numbers(dims)), memory.reshape(dims)
    for _ in range(steps):
        if random.random() < 0.5:
            perm = list(range(array.ndim))
            random.shuffle(perm)
            form, array = form.transposed(perm), array.transpose(perm)
        else:
            flat = [factor for size in array.shape for factor in ([2, size // 2] if size % 2 == 0 else [size])]
            cut = random.randrange(len(flat) + 1)
            wanted = [prod(flat[:cut]), *flat[cut:]]
            found = form.reshaped(numbers(wanted))
            if found is None:
                continue
            form, array = found, array.reshape(wanted)
        np.testing.assert_array_equal(seen(form, memory), array)
        np.testing.assert_array_equal(seen(form.merged(), memory), array)


def test_windows_and_back_are_free() -> None:
    """Swin: [1, 56, 56, 96] to windows of 7 by 7 and back, without a byte moved."""
    start = Form.plain(numbers([1, 56, 56, 96]))
    windows = (
        start.reshaped(numbers([1, 8, 7, 8, 7, 96])).transposed([0, 1, 3, 2, 4, 5]).reshaped(numbers([64, 49, 96]))
    )
    assert windows.dims == tuple(numbers([64, 49, 96])) and not windows.is_plain
    back = (
        windows.reshaped(numbers([1, 8, 8, 7, 7, 96])).transposed([0, 1, 3, 2, 4, 5]).reshaped(numbers([1, 56, 56, 96]))
    )
    assert back.merged() == start


def test_symbols_split_and_join() -> None:
    batch, tokens = dim("batch"), dim("tokens")
    form = Form.plain([batch, tokens, dim(384)])
    heads = form.reshaped([batch, tokens, dim(12), dim(32)])
    assert heads.transposed([0, 2, 1, 3]).dims == (batch, dim(12), tokens, dim(32))
    assert form.reshaped([batch * tokens, dim(384)]).reshaped([batch, tokens, dim(384)]).dims == form.dims
    assert quotient(batch * tokens * 6, tokens * 2).constant is None
    assert same_size(quotient(batch * tokens * 6, tokens * 2), batch * 3)
    assert quotient(batch, tokens) is None


def test_what_memory_cannot_show_is_refused() -> None:
    turned = Form.plain(numbers([2, 3])).transposed([1, 0])
    assert turned.reshaped(numbers([2, 3])) is None
    assert Form.plain(numbers([2, 3])).reshaped(numbers([3, 2])) is None
    assert Form.plain(numbers([6])).reshaped(numbers([7])) is None


@given(SIZES, SIZES)
def test_common_factors_make_up_both(a: list[int], b: list[int]) -> None:
    left, right = ([dim(one) for one in dims if one != 1] for dims in (a, b))
    found = common_factors(tuple(left), tuple(right))
    if prod(a) != prod(b):
        assert found is None
    elif found is not None:
        for axis in (left, right):
            assert Form.plain([product(found)]).reshaped(axis) is not None
            ends = {prod(int(one.value) for one in axis[:index]) for index in range(len(axis) + 1)}
            assert ends <= {prod(int(one.value) for one in found[:index]) for index in range(len(found) + 1)}


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (64, 70)])
def test_constants_of_the_same_bytes_are_one_and_others_are_not(shape: tuple[int, ...]) -> None:
    builder = Builder(Isa.GENERIC)
    first = np.ones(shape, np.float32)
    kept = builder.constant(first)
    assert builder.constant(np.ones(shape, np.float32)) is kept
    for at in range(min(first.size, 9)):  # wherever it differs, so also where only a look at all of it tells
        other = first.copy()
        other.reshape(-1)[at] = -1
        assert builder.constant(other) is not kept
    assert builder.constant(np.ones(shape, np.int32)) is not kept


def halves(graph_maker: Any, axes: int) -> Any:
    """Sizes cut into twos in two steps, as Hiera does, their order turned round, and rows of what came out multiplied."""
    g = graph_maker(axes)
    inner = axes - 6
    g.constant("fine", np.int64([2] * 6 + [2**inner]))
    g.constant("coarse", np.int64([64] + [2] * inner))
    g.constant("rows", np.int64([1 << (axes // 2), -1]))
    first = g.add("Transpose", [g.add("Reshape", ["x", "fine"], "a")], "b", perm=[6, 5, 4, 3, 2, 1, 0])
    g.constant("split", np.int64([2] * inner + [64]))
    last = g.add("Transpose", [g.add("Reshape", [first, "split"], "c")], "d", perm=[*range(inner - 1, -1, -1), inner])
    width = 2**axes >> (axes // 2)
    g.add("MatMul", [g.add("Reshape", [last, "rows"], "e"), g.weights("w", width, 5)], "y")
    return g.model({"x": [64, 2**inner]}, {"y": [1 << (axes // 2), 5]})


@pytest.mark.parametrize("axes", [8, 9, 10])
def test_more_axes_than_a_tensor_has_are_turned_in_two_steps(
    axes: int, graph_maker: Any, run_native: Any, run_onnx: Any, sample: Any, worst_db: Any
) -> None:
    model = halves(graph_maker, axes)
    inputs = sample(model)
    assert worst_db(run_onnx(model, inputs), run_native(model, inputs)) > 120


def test_axes_beyond_two_steps_are_refused(graph_maker: Any) -> None:
    with pytest.raises(NotTakenError, match="a transposition of 11 axes"):
        compile_model(halves(graph_maker, 11), Isa.GENERIC)
