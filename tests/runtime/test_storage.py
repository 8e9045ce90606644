"""Files and folders that are whole or absent, and the errors when the disk does not play along."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from edgewise.runtime.errors import RunError
from edgewise.runtime.storage import check_replaceable, sha256_of, whole_file, whole_folder


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_digest_of_a_file_of_several_pieces(tmp_path: Path):
    data = os.urandom((1 << 20) + 17)
    (tmp_path / "f").write_bytes(data)
    assert sha256_of(tmp_path / "f") == hashlib.sha256(data).hexdigest()


def test_a_whole_file_replaces_the_old(tmp_path: Path):
    target = tmp_path / "deep" / "file.txt"
    for text in ("one", "two"):
        with whole_file(target) as draft:
            assert draft.parent == target.parent
            assert not target.exists() or target.read_text() == "one"
            draft.write_text(text)
        assert target.read_text() == text
    assert names(target.parent) == ["file.txt"]
    assert target.stat().st_mode & 0o777 == 0o644


def test_a_whole_folder_replaces_the_old(tmp_path: Path):
    for name in ("one", "two"):
        with whole_folder(tmp_path / "folder") as draft:
            (draft / name).write_text(name)
    assert names(tmp_path / "folder") == ["two"]
    assert names(tmp_path) == ["folder"]


def test_what_may_be_replaced(tmp_path: Path):
    check_replaceable(tmp_path / "new", "mark", "thing")
    check_replaceable(tmp_path, "mark", "thing")
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(
        RunError, match=r"cannot write the thing .*found a folder with other files.*Choose another output"
    ):
        check_replaceable(tmp_path, "mark", "thing")
    with pytest.raises(RunError, match=r"found a file; expected no such folder, an empty one, or an earlier thing"):
        check_replaceable(tmp_path / "letter", "mark", "thing")
    (tmp_path / "mark").touch()
    check_replaceable(tmp_path, "mark", "thing")


@pytest.mark.parametrize("make", [whole_file, whole_folder])
@pytest.mark.parametrize("error", [ValueError("mistake"), KeyboardInterrupt(), SystemExit(3)])
def test_an_interruption_leaves_nothing_behind(tmp_path: Path, make, error):
    with pytest.raises(type(error)), make(tmp_path / "thing"):
        raise error
    assert names(tmp_path) == []


@pytest.mark.parametrize("make", [whole_file, whole_folder])
def test_a_full_disk(tmp_path: Path, make):
    with (
        pytest.raises(
            RunError, match=r"cannot write \(.*thing\): found No space left on device; expected a writable place"
        ),
        make(tmp_path / "thing"),
    ):
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == []


@pytest.mark.parametrize("make", [whole_file, whole_folder])
def test_a_file_in_the_place_of_the_folder(tmp_path: Path, make):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot write"), make(tmp_path / "file" / "thing"):
        pass
    assert names(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_renamed_brings_the_old_one_back(tmp_path: Path, monkeypatch):
    with whole_folder(tmp_path / "folder") as draft:
        (draft / "old").write_text("old")
    rename = Path.replace

    def refuse(self: Path, target: Path):
        if target == tmp_path / "folder" and not (self / "old").exists():
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(RunError, match="Input/output error"), whole_folder(tmp_path / "folder") as draft:
        (draft / "new").write_text("new")
    assert names(tmp_path / "folder") == ["old"]
    assert names(tmp_path) == ["folder"]


def test_an_os_error_of_a_library_is_not_blamed_on_the_disk(tmp_path: Path):
    with pytest.raises(OSError, match="image file is truncated"), whole_file(tmp_path / "thing"):
        raise OSError("image file is truncated")


def test_a_missing_file_elsewhere_is_not_blamed_on_the_output(tmp_path: Path):
    with pytest.raises(FileNotFoundError), whole_folder(tmp_path / "out" / "thing"):
        (tmp_path / "elsewhere" / "input").read_bytes()
    assert names(tmp_path / "out") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="Permission denied"), whole_file(tmp_path / "thing"):
        pass
