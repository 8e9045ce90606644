"""The comparer, mostly on networks that are wrong: each must be told apart from a right one."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.runtime.compare import (
    TensorParity,
    compare_outputs,
    empty_promises,
    parity_of_sums,
    require_parity,
    sums_of,
)
from edgewise.runtime.errors import GateError, RunError

RNG = np.random.default_rng(0)
REFERENCE = [{"y": RNG.standard_normal((2, 10)).astype(np.float32)} for _ in range(3)]


def changed(change) -> list[dict[str, np.ndarray]]:
    return [{"y": change(sample["y"].copy())} for sample in REFERENCE]


def parity_of(candidate) -> TensorParity:
    (parity,) = compare_outputs(REFERENCE, candidate)
    return parity


def with_value(array: np.ndarray, value: float) -> np.ndarray:
    array[0, 3] = value
    return array


def test_agreement_on_one_value_throughout_is_told():
    outputs = [
        {"y": np.full((2, 3), value), "z": np.zeros(3, np.int64), "b": np.array([True])} for value in (np.nan, np.nan)
    ]
    told = empty_promises(outputs)
    assert [line.split(" wherever")[0] for line in told] == ["output 'y' is nan", "output 'z' is 0", "output 'b' is 1"]
    assert all("--data" in line for line in told)
    outputs[1]["z"][2] = 1
    outputs[1]["y"][:] = 0.0
    outputs[1]["b"][:] = False
    assert empty_promises(outputs) == []
    assert empty_promises([{"y": np.ones(1)}, {"y": np.ones(0)}]) == []  # too little to tell
    assert empty_promises(REFERENCE) == []


def test_an_exact_match():
    parity = parity_of(changed(lambda y: y))
    assert parity == TensorParity("y", 0.0, math.inf, parity.cosine, 1.0, 3)
    assert parity.cosine == pytest.approx(1)
    assert json.loads(json.dumps(parity.to_json(), allow_nan=False))["exact"] is True
    assert parity.to_json()["sqnr_db"] is None


@pytest.mark.parametrize("change", [lambda y: y * 1.1, lambda y: with_value(y, math.nan), lambda y: y])
def test_sums_of_a_device_give_the_same_parity(change):
    candidate = changed(change)
    (entry,) = json.loads(json.dumps(sums_of(REFERENCE, candidate)))
    assert parity_of_sums(entry, len(REFERENCE)) == parity_of(candidate)


@given(scale=st.floats(0.1, 3).filter(lambda s: abs(s - 1) > 1e-3))
def test_off_by_a_scale(scale):
    parity = parity_of(changed(lambda y: y.astype(np.float64) * scale))
    assert parity.sqnr_db == pytest.approx(-20 * math.log10(abs(scale - 1)), abs=1e-3)
    assert parity.cosine == pytest.approx(1)
    assert parity.max_abs_error == pytest.approx(abs(scale - 1) * max(abs(s["y"]).max() for s in REFERENCE), rel=1e-4)
    assert not parity.exact


def test_permuted_channels():
    parity = parity_of(changed(lambda y: y[:, ::-1]))
    assert parity.sqnr_db < 6
    assert parity.argmax_agreement < 0.5


def test_constant_zero():
    parity = parity_of(changed(np.zeros_like))
    assert parity.sqnr_db == pytest.approx(0)
    assert parity.cosine == 0


def test_a_sign_flip():
    parity = parity_of(changed(np.negative))
    assert parity.sqnr_db == pytest.approx(-20 * math.log10(2))
    assert parity.cosine == pytest.approx(-1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none(value):
    parity = parity_of(changed(lambda y: with_value(y, value)))
    assert (parity.sqnr_db, parity.max_abs_error, parity.cosine) == (-math.inf, math.inf, 0.0)
    entry = json.loads(json.dumps(parity.to_json(), allow_nan=False))
    assert (entry["sqnr_db"], entry["exact"]) == (None, False)
    with pytest.raises(GateError):
        require_parity([parity], min_sqnr_db=-100, where="test")


def test_nan_and_infinity_at_the_same_places_agree():
    want = [{"y": np.array([1.0, np.nan, np.inf, -np.inf], np.float32)}]
    assert compare_outputs(want, want)[0].exact
    swapped = [{"y": np.array([1.0, np.nan, -np.inf, np.inf], np.float32)}]
    assert compare_outputs(want, swapped)[0].sqnr_db == -math.inf


def test_an_error_on_a_reference_of_zeros():
    zero, small = [{"y": np.zeros((1, 4), np.float32)}], [{"y": np.full((1, 4), 1e-30, np.float32)}]
    assert compare_outputs(zero, small)[0].sqnr_db == -math.inf
    assert compare_outputs(zero, zero)[0].exact


def test_an_error_whose_square_underflows_is_not_exact():
    want, have = np.array([0.0, 1e-200]), np.array([0.0, 2e-200])
    parity = compare_outputs([{"y": want}], [{"y": have}])[0]
    assert not parity.exact
    assert parity.max_abs_error == pytest.approx(1e-200)


def test_one_wrong_sample_of_many_shows():
    candidate = changed(lambda y: y)
    candidate[2]["y"][:] = 0
    parity = parity_of(candidate)
    assert 0 < parity.sqnr_db < 15
    assert parity.argmax_agreement < 1


def test_half_precision_is_compared_in_double():
    parity = parity_of(changed(lambda y: y.astype(np.float16)))
    assert 60 < parity.sqnr_db < 90


def test_integers_beyond_float64():
    want, have = np.array([2**60, 5], np.int64), np.array([2**60 + 1, 5], np.int64)
    parity = compare_outputs([{"i": want}], [{"i": have}])[0]
    assert (parity.exact, parity.max_abs_error, parity.argmax_agreement) == (False, 1.0, None)


def test_booleans():
    want = np.array([True, False])
    assert compare_outputs([{"b": want}], [{"b": want}])[0].exact
    assert not compare_outputs([{"b": want}], [{"b": ~want}])[0].exact


@pytest.mark.parametrize("shape", [(10,), (2, 1), (1, 4, 3), (2, 4, 3, 3)])
def test_argmax_only_for_rows_of_scores(shape):
    sample = [{"y": RNG.standard_normal(shape)}]
    assert compare_outputs(sample, sample)[0].argmax_agreement is None


@pytest.mark.parametrize(
    ("candidate", "says"),
    [
        (changed(lambda y: y[:, :9]), r"output 'y' of sample 0\): found shape \[2, 9\]; expected shape \[2, 10\]"),
        (changed(lambda y: y[None]), r"shape \[1, 2, 10\]"),
        (changed(lambda y: y.astype(np.int32)), r"found dtype int32; expected numbers of the same kind as float32"),
        (changed(lambda y: y.astype(object)), r"dtype object"),
        ([{} for _ in REFERENCE], r"outputs of sample 0\): found nothing; expected y"),
        ([*REFERENCE[:2], {"z": REFERENCE[2]["y"]}], r"outputs of sample 2\): found z"),
        ([sample | {"extra": sample["y"]} for sample in REFERENCE], r"found extra, y"),
        (REFERENCE[:2], r"found 2 of the candidate; expected as many as the reference's 3"),
        ([], r"found 0 of the candidate"),
    ],
)
def test_what_cannot_be_compared(candidate, says):
    with pytest.raises(RunError, match=says):
        compare_outputs(REFERENCE, candidate)


def test_no_reference_is_no_pass():
    with pytest.raises(RunError, match="at least one"):
        compare_outputs([], [])


def test_the_gate_names_the_worst():
    want = [{"a": np.ones((1, 4)), "b": np.ones((1, 4))}]
    have = [{"a": np.ones((1, 4)) * 1.0001, "b": np.ones((1, 4)) * 1.1}]
    parities = compare_outputs(want, have)
    require_parity(parities, min_sqnr_db=19.9, where="stage export")
    with pytest.raises(
        GateError, match=r"stage export, output 'b'\): found 20\.0 dB.*expected at least 30 dB"
    ) as caught:
        require_parity(parities, min_sqnr_db=30, where="stage export")
    assert caught.value.exit_code == 1
    with pytest.raises(GateError, match="no output"):
        require_parity([], min_sqnr_db=30, where="stage export")
