"""Bundles: made whole, opened with every digest checked, and every way to be broken or hostile."""

from __future__ import annotations

import gc
import io
import json
import os
import shutil
import stat
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.runtime.bundle import create_bundle, load_reference, open_bundle, save_reference, seal
from edgewise.runtime.errors import RunError

FUZZ = settings(max_examples=25)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch) -> Path:
    """Where temporary folders go, to see that none is left behind."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def zipped(bundle: Path, *, inside: str = "") -> Path:
    path = bundle.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(bundle.rglob("*")):
            archive.write(file, inside + file.relative_to(bundle).as_posix())
    return path


def test_what_was_made_is_what_opens(make_bundle):
    bundle = open_bundle(make_bundle())
    assert [spec.name for spec in bundle.inputs] == ["x"]
    assert bundle.outputs[0].shape == ("N", 5)
    assert sorted(bundle.manifest["files"]) == ["model.onnx", "reference.npz", "sub/recipe.yaml"]
    assert bundle.size_bytes == bundle.file("model.onnx").stat().st_size
    inputs, outputs = bundle.reference()
    assert [sample["x"].shape for sample in inputs] == [(1, 3, 8, 8)] * 2
    assert [sample["y"].shape for sample in outputs] == [(1, 5)] * 2
    with pytest.raises(RunError, match=r"found no 'other\.onnx'"):
        bundle.file("other.onnx")


def test_the_same_content_gives_the_same_bytes(make_bundle):
    first, second = make_bundle("net"), make_bundle("net")
    assert {f.name: f.read_bytes() for f in first.rglob("*") if f.is_file()} == {
        f.name: f.read_bytes() for f in second.rglob("*") if f.is_file()
    }


def test_an_interrupted_build_leaves_nothing_and_keeps_the_old(make_bundle, tmp_path):
    path = make_bundle()
    before = (path / "manifest.json").read_bytes()
    with pytest.raises(KeyboardInterrupt), create_bundle(path) as (draft, _):
        (draft / "model.onnx").write_bytes(b"half")
        raise KeyboardInterrupt
    assert (path / "manifest.json").read_bytes() == before
    assert [child.name for child in tmp_path.iterdir()] == ["net.edge"]


@pytest.mark.parametrize("inside", ["", "net.edge/"])
def test_a_zip_opens_and_is_cleaned_up(make_bundle, scratch, inside):
    path = zipped(make_bundle(), inside=inside)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/net.edge/._model.onnx", b"shadow")
    bundle = open_bundle(path)
    assert bundle.file("model.onnx").is_file()
    assert len(list(scratch.iterdir())) == 1
    del bundle
    gc.collect()
    assert list(scratch.iterdir()) == []


def test_what_a_file_manager_leaves_behind_is_let_through(make_bundle):
    path = make_bundle()
    (path / "sub" / ".DS_Store").write_bytes(b"litter")
    manifest = open_bundle(path).manifest
    seal(path, manifest)
    assert not [name for name in open_bundle(path).manifest["files"] if "DS_Store" in name]


@pytest.mark.parametrize("name", ["model.onnx", "reference.npz", "sub/recipe.yaml"])
@FUZZ
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_file(make_bundle, name, place, bit):
    path = make_bundle()
    raw = bytearray((path / name).read_bytes())
    raw[int(place * len(raw))] ^= 1 << bit
    (path / name).write_bytes(raw)
    with pytest.raises(
        RunError, match=rf"the bundle is damaged \(.*net\.edge\): found '{name}' changed since the build"
    ):
        open_bundle(path)


@FUZZ
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_manifest_is_an_error_or_harmless(make_bundle, place, bit):
    path = make_bundle()
    raw = bytearray((path / "manifest.json").read_bytes())
    raw[int(place * len(raw))] ^= 1 << bit
    (path / "manifest.json").write_bytes(raw)
    try:
        bundle = open_bundle(path)
    except RunError:
        return
    assert bundle.inputs
    assert bundle.size_bytes > 0


@FUZZ
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_a_zip_that_is_flipped_or_cut(make_bundle, scratch, place, bit, cut):
    path = zipped(make_bundle())
    raw = bytearray(path.read_bytes())
    at = int(place * len(raw))
    raw[at] ^= 1 << bit
    path.write_bytes(raw[:at] if cut else raw)
    try:
        bundle = open_bundle(path)
    except RunError:
        bundle = None
    if bundle:
        bundle.reference()
        del bundle
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("name", ["model.onnx", "reference.npz", "sub/recipe.yaml", "manifest.json"])
def test_a_cut_file(make_bundle, name, keep):
    path = make_bundle()
    raw = (path / name).read_bytes()
    (path / name).write_bytes(raw[: int(len(raw) * keep)])
    with pytest.raises(RunError, match="the bundle is damaged"):
        open_bundle(path)


WRONG = [None, True, 3, -1, 2.5, "text", [], [3], [{}], [[]], {}, {"a": 1}, {"": None}, [{"name": 3}]]
_REQUIRED = ("schema_version", "inputs", "outputs", "target", "engine", "files")
_OPEN = {"inputs": [[]], "outputs": [[]], "name": ["text"], "target": ["text"], "device": ["text"]}
_TABLES = ("source", "preprocess", "stages", "parity")


@pytest.mark.parametrize("key", [*_REQUIRED, "name", "device", *_TABLES])
def test_the_manifest_with_other_types_at_each_key(make_bundle, key):
    path = make_bundle()
    manifest = json.loads((path / "manifest.json").read_text())
    fine = _OPEN.get(key, [None, {}, {"a": 1}, {"": None}] if key in _TABLES else [])
    for value in WRONG:
        if any(type(value) is type(other) and value == other for other in fine):
            continue
        (path / "manifest.json").write_text(json.dumps(manifest | {key: value}))
        with pytest.raises(RunError):
            open_bundle(path)


@pytest.mark.parametrize("key", _REQUIRED)
def test_the_manifest_without_a_key(make_bundle, key):
    path = make_bundle()
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest[key]
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match=key):
        open_bundle(path)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("inputs", 0, "name"), 3),
        (("inputs", 0, "dtype"), "float99"),
        (("inputs", 0, "dtype"), ["float32"]),
        (("inputs", 0, "shape"), "N"),
        (("inputs", 0, "shape"), [1.5]),
        (("inputs", 0, "shape"), [-1]),
        (("inputs", 0, "shape"), [True]),
        (("inputs", 0, "shape"), [1 << 70]),
        (("outputs", 0), None),
        (("engine", "kind"), None),
        (("engine", "files"), None),
        (("engine", "files"), ["absent.onnx"]),
        (("engine", "files"), [["model.onnx"]]),
        (("engine", "settings"), []),
        (("engine", "layers"), [3]),
        (("engine", "versions"), {"a": 1}),
        (("engine", "notes"), "text"),
        (("files", "model.onnx"), "0" * 63),
        (("files", "model.onnx"), None),
        (("files", "../outside"), "0" * 64),
        (("files", "/etc/passwd"), "0" * 64),
        (("files", "a\0b"), "0" * 64),
        (("files", "\ud800"), "0" * 64),
        (("schema_version",), 2),
        (("schema_version",), 1.0),
    ],
)  # fmt: skip
def test_the_manifest_with_another_value_further_in(make_bundle, where, value):
    path = make_bundle()
    manifest = json.loads((path / "manifest.json").read_text())
    entry = manifest
    for step in where[:-1]:
        entry = entry[step]
    entry[where[-1]] = value
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError):
        open_bundle(path)


@pytest.mark.parametrize("text", ["", "[]", "3", "nul", "{", "[" * 100_000, '{"schema_version": 1' + "0" * 5000 + "}"])
def test_a_manifest_that_is_something_else(make_bundle, text):
    path = make_bundle()
    (path / "manifest.json").write_text(text)
    with pytest.raises(RunError):
        open_bundle(path)


def test_an_added_file(make_bundle):
    path = make_bundle()
    (path / "sub" / "new.bin").write_bytes(b"new")
    with pytest.raises(RunError, match=r"'sub/new\.bin' added since the build"):
        open_bundle(path)


def test_a_missing_file(make_bundle):
    path = make_bundle()
    (path / "model.onnx").unlink()
    with pytest.raises(RunError, match=r"'model\.onnx' missing"):
        open_bundle(path)


@pytest.mark.parametrize("name", ["model.onnx", "sub", "manifest.json", "new"])
def test_symbolic_links(make_bundle, tmp_path, name):
    path = make_bundle()
    if (path / name).exists():
        shutil.move(path / name, tmp_path / "elsewhere")
    (path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=rf"a symbolic link: '{name}'|no manifest\.json"):
        open_bundle(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_the_place_of_a_file(make_bundle):
    path = make_bundle()
    (path / "model.onnx").unlink()
    os.mkfifo(path / "model.onnx")
    with pytest.raises(RunError, match=r"'model\.onnx' changed"):
        open_bundle(path)


@pytest.mark.parametrize(
    "name", ["../outside.txt", "/outside.txt", "net.edge/../../outside.txt", "..\\outside.txt", "c:outside.txt"]
)
def test_a_zip_entry_that_leaves_the_folder(make_bundle, scratch, name):
    path = zipped(make_bundle())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), "outside")
    with pytest.raises(RunError, match="an entry that leaves the folder"):
        open_bundle(path)
    assert list(scratch.iterdir()) == []
    assert not list(scratch.parent.rglob("outside.txt"))


def test_a_zip_entry_that_is_a_link(make_bundle, scratch):
    path = zipped(make_bundle())
    with zipfile.ZipFile(path, "a") as archive:
        entry = zipfile.ZipInfo("link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(RunError, match="a symbolic link: 'link'"):
        open_bundle(path)
    assert list(scratch.iterdir()) == []


def test_a_zip_bomb(make_bundle, scratch):
    path = zipped(make_bundle())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("zeros", "w") as file:
        for _ in range(80):
            file.write(bytes(1 << 20))
    with pytest.raises(RunError, match=r"a zip of \d+ files that unpacks to 8\d{7} bytes"):
        open_bundle(path)
    assert list(scratch.iterdir()) == []


def test_no_room_to_unpack(make_bundle, scratch, monkeypatch):
    path = zipped(make_bundle())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(RunError, match="found 1 bytes of room for temporary files"):
        open_bundle(path)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "no such file or folder"),
        (lambda path: path.write_text("<html>"), "a file that is not a zip"),
        (lambda path: path.mkdir(), r"no manifest\.json"),
        (lambda path: zipfile.ZipFile(path, "w").close(), r"no manifest\.json"),
    ],
)
def test_what_is_no_bundle(tmp_path, scratch, make, says):
    make(tmp_path / "thing.edge")
    with pytest.raises(RunError, match=rf"cannot open the bundle \(.*thing\.edge\): found {says}"):
        open_bundle(tmp_path / "thing.edge")
    assert list(scratch.iterdir()) == []


@given(
    samples=st.lists(st.sampled_from([{"x": np.arange(3)}, {"a/b": np.float32(1), "c": np.zeros((0, 2))}]), max_size=12)
)
@FUZZ
def test_reference_data_comes_back(tmp_path, samples):
    save_reference(tmp_path / "r.npz", samples, samples)
    for kind in load_reference(tmp_path / "r.npz"):
        assert len(kind) == len(samples)
        for want, have in zip(samples, kind, strict=True):
            assert set(want) == set(have)
            for name in want:
                np.testing.assert_array_equal(want[name], have[name])


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": np.zeros(1)}, "found other keys; expected INDEX/in/NAME"),
        ({"0/in/x": np.zeros(1), "2/in/x": np.zeros(1)}, "other keys"),
        ({"999999/in/x": np.zeros(1)}, "other keys"),
        ({"9999999999/in/x": np.zeros(1)}, "other keys"),
        ({"-1/in/x": np.zeros(1)}, "other keys"),
        ({"0/up/x": np.zeros(1)}, "other keys"),
        ({"0/in/x": np.array([None])}, "unpickled"),
    ],
)
def test_reference_data_of_another_form(tmp_path, arrays, says):
    np.savez(tmp_path / "r.npz", **arrays)
    with pytest.raises(RunError, match=says):
        load_reference(tmp_path / "r.npz")


def test_reference_data_that_claims_to_be_huge(tmp_path):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)})
    with zipfile.ZipFile(tmp_path / "r.npz", "w") as archive:
        archive.writestr("0/in/x.npy", stream.getvalue())
    with pytest.raises(RunError, match="expected 4398046511232 for float32"):
        load_reference(tmp_path / "r.npz")
