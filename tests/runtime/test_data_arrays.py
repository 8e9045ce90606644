"""DATA as .npz and .npy: what is read, in which shape, how much memory it takes, and every kind of bad file."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.runtime.data import open_data
from edgewise.runtime.errors import RunError
from edgewise.runtime.tensors import TensorSpec

X = [TensorSpec.parse("x=f32[N,3]")]
TWO = [TensorSpec.parse("ids=i64[batch,seq]"), TensorSpec.parse("scale=f32[2]")]


def save(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path, **arrays)
    return str(path)


def rows(count: int) -> np.ndarray:
    return np.arange(count * 3, dtype=np.float32).reshape(count, 3)


@pytest.mark.parametrize("writer", [np.savez, np.savez_compressed])
def test_npz_with_labels(tmp_path: Path, writer):
    writer(tmp_path / "d.npz", x=rows(5), label=np.arange(5, dtype=np.int32), other=np.array(["not", "used"]))
    data = open_data(str(tmp_path / "d.npz"), X)
    assert (len(data), data.random, data.source) == (5, False, str(tmp_path / "d.npz"))
    for _ in range(2):
        samples = list(data)
        np.testing.assert_array_equal(np.concatenate([sample.inputs["x"] for sample in samples]), rows(5))
        assert [sample.label for sample in samples] == [0, 1, 2, 3, 4]
        assert samples[0].inputs["x"].shape == (1, 3)
        assert samples[0].inputs["x"].flags.writeable


def test_the_sample_axis_is_the_batch_dim_or_stands_before_it(tmp_path: Path):
    ids, scale = np.arange(12).reshape(4, 3), np.ones((4, 2), np.float32)
    for stored in (ids, ids[:, None]):
        data = open_data(save(tmp_path / "d.npz", ids=stored, scale=scale), TWO)
        shapes = [{name: array.shape for name, array in sample.inputs.items()} for sample in data]
        assert shapes == [{"ids": (1, 3), "scale": (2,)}] * 4


def test_npy_is_the_only_input(tmp_path: Path):
    np.save(tmp_path / "d.npy", rows(3).astype(">f4"))
    samples = list(open_data(str(tmp_path / "d.npy"), X))
    np.testing.assert_array_equal(samples[2].inputs["x"], rows(3)[2:])
    assert samples[2].inputs["x"].dtype == np.dtype("=f4")
    with pytest.raises(RunError, match="one for each of ids, scale"):
        open_data(str(tmp_path / "d.npy"), TWO)


def test_scalars_and_inputs_called_label(tmp_path: Path):
    inputs = [TensorSpec.parse("t=f32[]"), TensorSpec.parse("label=i64[1]")]
    source = save(tmp_path / "d.npz", t=np.ones(2, np.float32), label=np.array([[3], [4]]))
    samples = list(open_data(source, inputs))
    assert samples[1].inputs["t"].shape == ()
    assert samples[1].inputs["label"] == 4
    assert samples[1].label is None


@given(count=st.integers(1, 20), limit=st.integers(1, 25))
@settings(max_examples=30)
def test_a_limit_is_spread_evenly(tmp_path: Path, count, limit):
    data = open_data(save(tmp_path / "d.npz", x=rows(count), label=np.arange(count)), X, limit=limit)
    labels = [sample.label for sample in data]
    assert len(labels) == len(data) == min(count, limit)
    assert labels == sorted(set(labels))
    assert labels == [i * count // len(labels) for i in range(len(labels))]


def test_taking_twice(tmp_path: Path):
    data = open_data(save(tmp_path / "d.npz", x=rows(16), label=np.arange(16)), X).take(8).take(2)
    assert [sample.label for sample in data] == [0, 8]


@pytest.mark.parametrize("writer", [np.savez, np.savez_compressed])
def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path, writer):
    writer(tmp_path / "d.npz", x=np.zeros((40, 3, 200, 200), np.float32))
    tracemalloc.start()
    try:
        for _ in open_data(str(tmp_path / "d.npz"), [TensorSpec.parse("x=f32[1,3,200,200]")]):
            pass
        assert tracemalloc.get_traced_memory()[1] < 6 * 3 * 200 * 200 * 4
    finally:
        tracemalloc.stop()


class Bomb:
    def __reduce__(self):
        return (Path.write_text, (Path("unpickled"), "boom"))


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"y": rows(2)}, r"no array 'x', only y; expected arrays named x"),
        ({}, r"no array 'x', only nothing"),
        ({"x": rows(2).astype(np.float64)}, r"sample 0\): found float64\[1, 3\]; expected float32\[N, 3\]"),
        ({"x": rows(3).reshape(9)}, r"array 'x'\): found float32\[9\]; expected a first axis of samples"),
        ({"x": np.ones((2, 4), np.float32)}, r"float32\[1, 4\]"),
        ({"x": np.float32(3)}, r"found float32\[\]; expected a first axis of samples"),
        ({"x": rows(0)}, "found no samples"),
        ({"x": rows(2), "label": np.arange(3)}, "unequal numbers of samples: x 2, label 3"),
        ({"x": rows(2), "label": np.zeros(2)}, r"array 'label'\): found float64\[2\]; expected one integer per sample"),
        ({"x": np.asfortranarray(rows(2))}, "Fortran order"),
        ({"x": np.array([Bomb(), Bomb()], dtype=object)}, "would have to be unpickled"),
        ({"x": rows(2), "label": np.array([Bomb(), 1], dtype=object)}, r"array 'label'\): found Python objects"),
        ({"x": np.array([["a", "b", "c"]])}, r"str32\[1, 3\]"),
    ],
)
def test_bad_npz(tmp_path: Path, monkeypatch, arrays, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=says):
        list(open_data(save(tmp_path / "d.npz", **arrays), X))
    assert not Path("unpickled").exists()


def test_the_sample_that_does_not_fit_is_named(tmp_path: Path):
    def stream(shape: str, data: bytes) -> bytes:
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
        header += b" " * (-(len(header) + 11) % 64) + b"\n"
        return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data

    for name, shape, says in [
        ("huge", "(9000000000000, 3)", r"expected 108000000000\d+ for float32\[9000000000000, 3\]"),
        ("negative", "(-1, 3)", r"<?float32\[-1, 3\]"),
        ("text", "'abc'", "ValueError"),
        ("call", "__import__('os').getcwd()", "ValueError"),
    ]:
        (tmp_path / f"{name}.npy").write_bytes(stream(shape, bytes(12)))
        with pytest.raises(RunError, match=says):
            open_data(str(tmp_path / f"{name}.npy"), X)
    (tmp_path / "good.npy").write_bytes(stream("(1, 3)", bytes(12)))
    assert len(open_data(str(tmp_path / "good.npy"), X)) == 1


@settings(max_examples=150)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), compressed=st.booleans())
def test_a_flipped_bit_gives_an_error_or_the_same_layout(tmp_path: Path, place, bit, compressed):
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, x=rows(4), label=np.arange(4))
    raw = bytearray(buffer.getvalue())
    raw[int(place * len(raw))] ^= 1 << bit
    (tmp_path / "d.npz").write_bytes(raw)
    try:
        samples = list(open_data(str(tmp_path / "d.npz"), X))
    except RunError:
        return
    assert all(sample.inputs["x"].shape == (1, 3) for sample in samples)


@pytest.mark.parametrize("keep", [0, 10, 200, 700])
def test_a_cut_file(tmp_path: Path, keep):
    save(tmp_path / "d.npz", x=np.zeros((300, 3), np.float32))
    raw = (tmp_path / "d.npz").read_bytes()
    (tmp_path / "d.npz").write_bytes(raw[:keep])
    with pytest.raises(RunError, match="BadZipFile"):
        open_data(str(tmp_path / "d.npz"), X)
    np.save(tmp_path / "d.npy", np.zeros((300, 3), np.float32))
    raw = (tmp_path / "d.npy").read_bytes()
    (tmp_path / "d.npy").write_bytes(raw[:keep])
    with pytest.raises(RunError, match=r"d\.npy"):
        open_data(str(tmp_path / "d.npy"), X)


def test_a_member_that_is_no_array(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", "<html>")
        archive.writestr("y", "no suffix")
    with pytest.raises(RunError, match=r"array 'x'\): found ValueError"):
        open_data(str(tmp_path / "d.npz"), X)
    with pytest.raises(RunError, match=r"array 'y'\): found KeyError"):
        open_data(str(tmp_path / "d.npz"), [TensorSpec.parse("y=f32[1]")])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.npz", "no such file or folder; expected .npz, .npy, a folder or zip of images, or module:callable"),
        ("page.html", r"a file \.html that is no zip"),
        ("noise", "a file without a suffix that is no zip"),
    ],
)
def test_other_files(tmp_path: Path, name, says):
    (tmp_path / "page.html").write_text("<html>")
    (tmp_path / "noise").write_text("noise")
    with pytest.raises(RunError, match=says):
        open_data(str(tmp_path / name), X)


def test_a_limit_of_nothing(tmp_path: Path):
    with pytest.raises(RunError, match="a limit of 0"):
        open_data(save(tmp_path / "d.npz", x=rows(2)), X, limit=0)
