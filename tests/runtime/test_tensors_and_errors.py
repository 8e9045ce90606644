"""Tensor descriptions, the five-part error, and late imports."""

from __future__ import annotations

import importlib.util
import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.runtime.errors import EdgewiseError, GateError, MissingExtraError, RunError
from edgewise.runtime.extras import lazy_exports, needs
from edgewise.runtime.tensors import DTYPES, TensorSpec, batch_dim, long_dims

DIMS = st.one_of(st.integers(0, 1 << 20), st.from_regex(r"[a-zA-Z_][a-z0-9_+* ]{0,4}[a-z0-9]", fullmatch=True))


@given(
    name=st.from_regex(r"[a-zA-Z/_.:0-9]{1,12}", fullmatch=True),
    dtype=st.sampled_from(sorted(DTYPES)),
    shape=st.lists(DIMS, max_size=5),
)
def test_text_and_json_come_back(name, dtype, shape):
    spec = TensorSpec(name, dtype, tuple(shape))
    assert TensorSpec.parse(f"{name}={dtype}[{','.join(map(str, shape))}]") == spec
    assert TensorSpec.from_json(json.loads(json.dumps(spec.to_json() | {"layout": "NCHW"}))) == spec


@pytest.mark.parametrize("text", ["", "x", "x=f32", "x=f99[1]", "=f32[1]", "x=f32[1", "x=f32[1]]", "x f32[1]"])
def test_what_cannot_be_parsed(text):
    with pytest.raises(RunError, match=r"expected NAME=DTYPE\[DIM,DIM,…\] such as"):
        TensorSpec.parse(text)


def test_shapes_with_numbers_for_names():
    assert TensorSpec("x", "float32", ("N", 3, "M")).concrete(7) == (7, 3, 7)
    assert TensorSpec("x", "float32", ("N", 3, "M")).concrete(7, {"M": 2}) == (7, 3, 2)


@pytest.mark.parametrize(
    ("array", "fits"),
    [
        (np.ones((5, 3), np.float32), True),
        (np.ones((0, 3), np.float32), True),
        (np.ones((5, 4), np.float32), False),
        (np.ones((5, 3, 1), np.float32), False),
        (np.ones(3, np.float32), False),
        (np.ones((5, 3), np.float64), False),
        (np.ones((5, 3), np.int32), False),
    ],
)
def test_fitting(array, fits):
    spec = TensorSpec.parse("x=f32[N,3]")
    assert spec.fits(array) is fits
    if fits:
        spec.check(array)
        return
    with pytest.raises(
        RunError,
        match=rf"input 'x' does not fit \(here\): found {array.dtype.name}.*expected float32\[N, 3\]\. Do that\.",
    ):
        spec.check(array, "here", "Do that")


def test_an_error_is_one_sentence_of_five_parts():
    error = RunError("cannot go on", where="node 3", found="a wall", expected="a door", fix="Turn around.")
    assert str(error) == "cannot go on (node 3): found a wall; expected a door. Turn around."
    assert (error.what, error.where, error.found, error.expected, error.fix) == (
        "cannot go on", "node 3", "a wall", "a door", "Turn around.",
    )  # fmt: skip
    assert str(RunError("cannot go on")) == "cannot go on."
    assert str(RunError("cannot go on", expected="a door")) == "cannot go on: expected a door."
    assert str(RunError("cannot go on", found="a wall")) == "cannot go on: found a wall."


def test_exit_codes():
    assert (EdgewiseError("x").exit_code, RunError("x").exit_code, GateError("x").exit_code) == (2, 2, 1)


def test_a_missing_package_names_its_extra():
    with (
        pytest.raises(
            MissingExtraError,
            match=r"no_such_package_here is not installed: expected the extra \[coreml\]\. Install it with: pip install 'edgewise\[coreml\]'",
        ),
        needs("coreml"),
    ):
        import no_such_package_here.inner  # noqa: F401


def test_a_broken_package_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "half_package.py").write_text("import no_such_package_here\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtraError, match="no_such_package_here"), needs("coreml"):
        import half_package  # noqa: F401
    (tmp_path / "other_package.py").write_text("import json.no_such_part\n")
    with pytest.raises(ModuleNotFoundError, match="json"), needs("coreml"):
        import other_package  # noqa: F401


def test_lazy_names():
    find = lazy_exports({"TensorSpec": "edgewise.runtime.tensors", "lost": "no_such_package_here"}, "graph")
    assert find("TensorSpec") is TensorSpec
    with pytest.raises(AttributeError):
        find("other")
    with pytest.raises(MissingExtraError, match=r"\[graph\]"):
        find("lost")


def test_our_own_missing_module_is_our_mistake(monkeypatch):
    with pytest.raises(ModuleNotFoundError, match=r"edgewise\.runtime\.no_such_module"), needs("graph"):
        importlib.import_module("edgewise.runtime.no_such_module")
    assert "edgewise.runtime.no_such_module" not in sys.modules


@pytest.mark.parametrize(
    ("inputs", "sides", "signals"),
    [
        (["x=f32[N,3,H,W]"], "HW", ""),
        (["x=f32[1,H,W,3]"], "HW", ""),
        (["x=f32[N,1,D,H,W]"], "DHW", ""),
        (["x=f32[N,C,T]"], "", ""),
        (["past=f32[N,8,past,64]"], "", ""),  # keys of a decoder
        (["ids=i64[N,S]", "mask=f32[N,1,S,total]"], "", ""),
        (["x=f32[N,3,H,W]", "sizes=i64[N,2]"], "HW", ""),
        (["sound=f32[N,T]", "state=f32[2,N,64]"], "", "T"),
        (["sound=f32[T]"], "", "T"),
        (["sound=f32[N,2,T]", "lowest=f32[]"], "", "T"),
        (["ids=i64[N,S]", "weights=f32[N,S]"], "", ""),  # a mask
        (["x=f32[N,4,64,64]", "steps=f32[N]"], "", ""),  # a diffusion's
        (["features=f32[N,64]"], "", ""),
    ],
)
def test_dims_that_must_not_be_small(inputs, sides, signals):
    kinds = long_dims([TensorSpec.parse(text) for text in inputs])
    assert kinds == dict.fromkeys(sides, "side") | dict.fromkeys(signals, "signal")


@pytest.mark.parametrize(
    ("inputs", "dim"),
    [
        (["x=f32[N,3,8,8]"], "N"),
        (["ids=i64[batch,length]", "mask=i64[batch,length]", "scale=f32[]"], "batch"),
        (["ids=i64[length]"], None),
        (["x=f32[N,N]"], None),
        (["x=f32[1,3,8,8]", "boxes=f32[N,4]"], None),
        (["x=f32[2,3]"], None),
        ([], None),
    ],
)
def test_a_batch_is_first_everywhere(inputs: list[str], dim: str | None) -> None:
    assert batch_dim([TensorSpec.parse(text) for text in inputs]) == dim
