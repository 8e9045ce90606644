"""DATA as module:callable and path.py:callable, random data, and callables that yield the wrong thing."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

from edgewise.runtime.callables import find_callable
from edgewise.runtime.data import open_data, random_data
from edgewise.runtime.errors import RunError
from edgewise.runtime.tensors import TensorSpec

X = [TensorSpec.parse("x=f32[N,2]")]
MODULE = """
import numpy as np
from neighbour_of_samples import SIZE

def good():
    for i in range(SIZE):
        yield {"x": np.full((1, 2), i, np.float32), "label": np.int64(i), "unused": None}

def listed(): return [{"x": np.zeros(2, np.float32)}] * 4
class Tensor:  # of another library: becomes an array, and an integer, when asked
    def __array__(self, dtype=None, copy=None): return np.ones((1, 2), np.float32)
    def __index__(self): return 3

def foreign(): yield {"x": Tensor(), "label": Tensor()}

def number(): return 3
def arrays(): yield np.zeros((1, 2), np.float32)
def other_name(): yield {"y": np.zeros((1, 2), np.float32)}
def other_dtype(): yield {"x": np.zeros((1, 2))}
def ragged(): yield {"x": [[1, 2], [3]]}
def objects(): yield {"x": np.array([None, None])}
def text_label(): yield {"x": np.zeros(2, np.float32), "label": "cat"}
def nothing(): return iter(())
def fails():
    yield {"x": np.zeros(2, np.float32)}
    raise KeyError("lost")
def wants(argument): yield argument

once = iter([{"x": np.zeros(2, np.float32)}] * 2)
def shrinking(): return once
lengths = iter((3, 2))
def varying(): return [{"x": np.zeros(2, np.float32)}] * next(lengths)
class Box:
    @staticmethod
    def make(): return [{"x": np.zeros(2, np.float32)}]
constant = 3
"""
_unique = itertools.count()


@pytest.fixture
def module(tmp_path: Path, monkeypatch) -> str:
    """A module of its own name in the current folder."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "neighbour_of_samples", raising=False)
    name = f"samples_for_test_{next(_unique)}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / "neighbour_of_samples.py").write_text("SIZE = 5")
    return name


@pytest.mark.parametrize("form", ["{}:good", "{}.py:good", "./{}.py:good"])
def test_resolved_from_the_current_folder(module, form):
    data = open_data(form.format(module), X)
    assert data.known_length is None
    for _ in range(2):
        assert [sample.label for sample in data] == [0, 1, 2, 3, 4]
    assert len(data) == data.known_length == 5
    assert next(iter(data)).inputs["x"].shape == (1, 2)


def test_a_file_elsewhere_finds_its_neighbours(module, tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert len(open_data(f"../{module}.py:good", X)) == 5


def test_lists_methods_limits_and_tensors(module):
    assert len(open_data(f"{module}:listed", X)) == 4
    assert len(open_data(f"{module}:Box.make", X)) == 1
    limited = open_data(f"{module}:good", X, limit=3)
    assert [sample.label for sample in limited] == [0, 1, 2]
    assert len(limited.take(9)) == 3
    (sample,) = open_data(f"{module}:foreign", X)
    assert (sample.label, type(sample.inputs["x"])) == (3, np.ndarray)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("number", "found a int; expected dicts"),
        ("arrays", r"sample 0\): found a ndarray; expected a dict"),
        ("other_name", "no 'x', only y; expected arrays named x"),
        ("other_dtype", r"input 'x' does not fit .*sample 0\): found float64\[1, 2\]"),
        ("ragged", r"input 'x'\): found ValueError"),
        ("objects", r"found object\[1, 2\]"),
        ("text_label", r"label\): found a str; expected an integer"),
        ("nothing", "found no samples"),
        ("fails", "found KeyError: 'lost'"),
        ("wants", "missing 1 required positional argument"),
        ("absent", r"no 'absent' in .*samples_for_test.*\.py"),
        ("constant", "found int 'constant'"),
    ],
)
def test_callables_that_yield_the_wrong_thing(module, name, says):
    with pytest.raises(RunError, match=says):
        list(open_data(f"{module}:{name}", X))


def test_a_source_that_cannot_start_anew(module):
    data = open_data(f"{module}:shrinking", X)
    assert sum(1 for _ in data) == 2
    with pytest.raises(RunError, match="no samples"):
        next(iter(data))


def test_a_source_that_is_shorter_the_second_time(module):
    data = open_data(f"{module}:varying", X)
    assert len(data) == 3
    with pytest.raises(RunError, match=r"found 2 samples; expected 3 as in the pass before"):
        list(iter(data))


@pytest.mark.parametrize(
    ("text", "content", "says"),
    [
        ("no_such_module_here:f", None, "no module 'no_such_module_here'"),
        ("no.such.module:f", None, "no module 'no.such.module'"),
        ("nowhere.py:f", None, r"no file nowhere\.py"),
        ("broken.py:f", "def f(:", "found SyntaxError"),
        ("raising.py:f", "1 / 0", "found ZeroDivisionError"),
        ("importing.py:f", "import no_such_thing", "No module named 'no_such_thing'"),
        ("importing_module:f", "import no_such_thing", "failed while it was imported.*no_such_thing"),
        (":f", None, "expected module:function"),
        ("module:", None, "expected module:function"),
        ("module:a b", None, "expected module:function"),
    ],
)
def test_names_that_lead_nowhere(tmp_path, monkeypatch, text, content, says):
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / f"{text.split(':')[0].removesuffix('.py')}.py").write_text(content)
    with pytest.raises(RunError, match=says):
        find_callable(text, option="--metric")


def test_random_data():
    specs = [
        TensorSpec.parse(text)
        for text in ("x=f32[N,3]", "ids=i64[N,S]", "b=u8[500]", "m=bool[4]", "s=f16[]", "k=i32[]")
    ]
    data = random_data(specs, 3, seed=5, dynamic=2)
    assert (len(data), data.random) == (3, True)
    first, again = list(data), list(random_data(specs, 9, seed=5, dynamic=2))
    for one, other in zip(first, again, strict=False):
        for spec in specs:
            spec.check(one.inputs[spec.name])
            np.testing.assert_array_equal(one.inputs[spec.name], other.inputs[spec.name])
    assert first[0].inputs["ids"].shape == (2, 2)
    assert set(np.unique(first[0].inputs["ids"])) <= {0, 1}
    assert all(sample.inputs["ids"][:, 0].min() == 1 for sample in first)
    assert first[0].inputs["b"].max() > 200
    assert not np.array_equal(first[0].inputs["x"], first[1].inputs["x"])
    other_seed = next(iter(random_data(specs, 1, seed=6, dynamic=2)))
    assert not np.array_equal(first[0].inputs["x"], other_seed.inputs["x"])
    with pytest.raises(RunError, match="no samples"):
        random_data(specs, 0)


def test_random_images_have_more_than_a_few_pixels():
    specs = [TensorSpec.parse(text) for text in ("x=f32[N,3,H,W]", "ids=i64[N,S]")]
    sample = next(iter(random_data(specs, 1, dynamic=2))).inputs
    assert (sample["x"].shape, sample["ids"].shape) == ((2, 3, 64, 64), (2, 2))
