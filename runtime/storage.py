"""Files that are either whole or absent: everything edgewise writes goes through here."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgewise.runtime.errors import RunError


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it over ``path`` when the block ends well, remove it otherwise.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    with _explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        draft = Path(name)
        try:
            yield draft
            draft.chmod(0o644)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


def check_replaceable(folder: Path, mark: str, what: str) -> None:
    """Refuse a place that holds anything but an empty folder or an earlier ``what``, which has a file ``mark``.

    Raises:
        RunError: somebody's other files lie there, and would be lost.
    """
    if folder.exists() and not (folder / mark).is_file() and (not folder.is_dir() or any(os.scandir(folder))):
        raise RunError(
            f"cannot write the {what}",
            where=str(folder),
            found="a folder with other files" if folder.is_dir() else "a file",
            expected=f"no such folder, an empty one, or an earlier {what}",
            fix="Choose another output folder",
        )


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; rename it to ``path`` (replacing a folder there) when the block ends well.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    with _explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            yield draft
            draft.chmod(0o755)
            _swap(draft, path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _swap(draft: Path, path: Path) -> None:
    if not path.exists():
        draft.replace(path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
    path.replace(old / path.name)
    try:
        draft.replace(path)
    except OSError:
        (old / path.name).replace(path)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _explain_os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not _concerns(error, path):
            raise
        raise RunError(
            "cannot write",
            where=str(path),
            found=error.strerror or "",
            expected="a writable place with enough room",
            fix="Free some space or choose another output folder; nothing was left behind",
        ) from error


def _concerns(error: OSError, path: Path) -> bool:
    """Whether the file system raised it over what is written here, not a library, nor over a file elsewhere."""
    if error.strerror is None:
        return False
    if not isinstance(error.filename, str | bytes):
        return True
    place, target = Path(os.fsdecode(error.filename)).absolute(), path.absolute()
    return place.is_relative_to(target.parent) or target.is_relative_to(place)
