"""Packed weights hold what was packed, and say truly what kernels may rely on; the choice between dense and sparse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.targets.cpu.native.packing import choose_block, pack_conv, pack_depthwise
from edgewise.targets.cpu.native.plan import Isa

_SHAPE = st.tuples(st.integers(1, 37), st.integers(1, 23), st.integers(1, 3), st.integers(1, 3))


def weights_of(shape, density=1.0, outputs=1, rows=1, dtype=np.int8, seed=0):
    rng = np.random.default_rng(seed)
    m, c, *kernel = shape
    kept = rng.random((-(-m // outputs), -(-c // rows), *kernel)) < density
    mask = kept.repeat(outputs, 0).repeat(rows, 1)[:m, :c]
    values = rng.integers(1, 128, shape) * rng.choice([-1, 1], shape)
    return (values * mask).astype(dtype)


def entry_matrix(weights):
    """[outputs, entries, 4 or 1], by the definition in packing.py, one number at a time."""
    m, c, *kernel = weights.shape
    wide, positions = (4 if weights.dtype == np.int8 else 1), int(np.prod(kernel))
    flat = weights.reshape(m, c, positions)
    out = np.zeros((m, -(-c // wide) * positions, wide), weights.dtype)
    for channel in range(c):
        for position in range(positions):
            out[:, channel // wide * positions + position, channel % wide] = flat[:, channel, position]
    return out


@given(shape=_SHAPE, dtype=st.sampled_from([np.int8, np.float32]))
def test_dense_lines_hold_every_weight(shape, dtype):
    weights = weights_of(shape, dtype=dtype)
    entries = entry_matrix(weights)
    lines = pack_conv(weights).constants["weights"]
    assert lines.shape[1:] == (-(-shape[0] // 16), entries.shape[1], 16, entries.shape[2])
    for output in range(lines.shape[1] * 16):
        want = entries[output] if output < shape[0] else 0
        np.testing.assert_array_equal(lines[0, output // 16, :, output % 16], want)


@given(
    shape=_SHAPE,
    dtype=st.sampled_from([np.int8, np.float32]),
    outputs=st.sampled_from([1, 2, 4]),
    density=st.floats(0, 1),
)
def test_sparse_lists_hold_every_block_that_is_not_zero(shape, dtype, outputs, density):
    weights = weights_of(shape, density, outputs, dtype=dtype)
    entries = entry_matrix(weights)
    packed = pack_conv(weights, block=(4, outputs))
    start, index, values = (packed.constants[name] for name in ("start", "index", "weights"))
    blocks = -(-shape[0] // outputs)
    assert len(start) == packed.attributes["parts"] * blocks + 1
    got = np.zeros((blocks * outputs, *entries.shape[1:]), dtype)
    for number in range(len(start) - 1):
        first = number % blocks * outputs
        for at in range(start[number], start[number + 1]):
            assert values[at].any()
            got[first : first + outputs, index[at]] += values[at]
    np.testing.assert_array_equal(got[: shape[0]], entries)


def test_long_lists_of_few_outputs_come_in_parts():
    weights = weights_of((8, 2000), 0.5)
    assert pack_conv(weights, block=(4, 4)).attributes["parts"] == 1
    packed = pack_conv(weights, block=(4, 1))
    assert packed.attributes["parts"] == 5
    per_part = [
        packed.constants["index"][a:b]
        for a, b in zip(packed.constants["start"], packed.constants["start"][1:], strict=False)
    ]
    assert all(np.ptp(entries) < 112 for entries in per_part if len(entries))


@given(shape=_SHAPE, seed=st.integers(0, 99), most=st.integers(1, 127))
def test_pairs_are_called_safe_only_where_16_bits_hold_them(shape, seed, most):
    weights = np.clip(weights_of(shape, seed=seed), -most, most)
    entries = entry_matrix(weights).astype(int)
    worst = np.abs(entries).reshape(*entries.shape[:2], 2, 2).sum(-1).max() * 255
    assert pack_conv(weights).attributes["safe_pairs"] == int(worst <= 128 * 255)
    if pack_depthwise(weights[:, 0]).attributes["safe_pairs"]:
        assert 2 * 255 * np.abs(weights[:, 0].astype(int)).max() <= 2**15 - 1


@pytest.mark.parametrize("dtype", [np.int8, np.float32])
@pytest.mark.parametrize("group, shape, merged", [(2, (8, 4, 3, 3), 2), (6, (12, 1, 3, 3), 1), (4, (16, 2, 1, 1), 2)])
def test_groups_are_merged_into_whole_blocks(dtype, group, shape, merged):
    packed = pack_conv(weights_of(shape, dtype=dtype), group=group)
    if dtype == np.int8:
        assert packed.attributes["group"] == merged
    assert np.count_nonzero(packed.constants["weights"]) == np.prod(shape)


def test_sparse_is_chosen_where_it_was_measured_to_pay():
    for dtype in (np.int8, np.float32):
        rows = 4 if dtype == np.int8 else 1
        assert choose_block(weights_of((256, 256), dtype=dtype)) is None
        assert choose_block(weights_of((256, 256), 0.95, 4, 4, dtype)) is None
        assert choose_block(weights_of((256, 256), 0.25, 4, 4, dtype)) == (rows, 4)
        assert choose_block(weights_of((256, 256), 0.5, 2, 4, dtype)) == (rows, 2)
        assert choose_block(weights_of((256, 256), 0.25, 1, 4, dtype)) == (rows, 1)
        assert choose_block(weights_of((256, 256), 0.25, 4, 4, dtype), pixels=1) is None


@pytest.mark.parametrize("dtype", [np.int8, np.float32])
def test_with_avx2_alone_single_outputs_must_be_sparser(dtype):
    """There dense bytes come in pairs, and lists of one output wait for loads."""
    rows = 4 if dtype == np.int8 else 1
    for density, taken in ((0.1, True), (0.5, False)):
        block = choose_block(weights_of((256, 256), density, 1, 4, dtype), isa=Isa.AVX2)
        assert (block is not None) is taken
    assert choose_block(weights_of((256, 256), 0.5, 2, 4, dtype), isa=Isa.AVX2) is not None
    assert choose_block(weights_of((256, 256), 0.25, 4, 4, dtype), isa=Isa.AVX2) == (rows, 4)


def test_what_winograds_algorithm_would_multiply_must_be_sparser():
    weights = weights_of((64, 64, 3, 3), 0.6, 4, 4)
    assert choose_block(weights, isa=Isa.AVX2) == (4, 4)
    assert choose_block(weights, isa=Isa.AVX2, winograd=True) is None
    assert choose_block(weights_of((64, 64, 3, 3), 0.25, 4, 4), isa=Isa.AVX2, winograd=True) == (4, 4)


@pytest.mark.parametrize(
    "shape, dtype, more",
    [
        ((8,), np.int8, {}),
        ((8, 8), np.int16, {}),
        ((8, 8), np.int8, {"group": 3}),
        ((8, 8), np.int8, {"block": (4, 3)}),
    ],
)
def test_what_kernels_do_not_have_is_refused(shape, dtype, more):
    with pytest.raises(ValueError, match=r"not|cannot"):
        pack_conv(np.zeros(shape, dtype), **more)
