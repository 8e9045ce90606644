"""Unpacking a zip that somebody else made."""

from __future__ import annotations

import shutil
import stat
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from edgewise.runtime.errors import RunError
from edgewise.runtime.manifest import damaged
from edgewise.runtime.npy import ZIP_ERRORS

_MOST_ENTRIES = 10_000
_ALWAYS_FINE_BYTES = 64 << 20
# Sparse float weights shrink 30-fold at most; deflate itself could do 1,000-fold.
_LARGEST_RATIO = 100


def unpack(path: Path) -> Path:
    """Unpack a zip into a new temporary folder, which the caller removes.

    Raises:
        RunError: cut, changed or encrypted; an entry that leaves the folder or is a link; more bytes than the disk has
            room for, or than an honest bundle would unpack to. Nothing is left behind.
    """
    folder = Path(tempfile.mkdtemp(prefix="edgewise-"))
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.filename.startswith("__MACOSX/")]
            _check(entries, path, shutil.disk_usage(folder).free)
            archive.extractall(folder, entries)
    except RunError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except ZIP_ERRORS as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise damaged(str(path), f"{type(error).__name__}: {error}") from error
    return folder


def _check(entries: list[zipfile.ZipInfo], path: Path, free_bytes: int) -> None:
    for entry in entries:
        name = PurePosixPath(entry.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in entry.filename or ":" in entry.filename:
            raise damaged(str(path), f"an entry that leaves the folder: {entry.filename!r}")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise damaged(str(path), f"a symbolic link: {entry.filename!r}")
    size = sum(entry.file_size for entry in entries)
    limit = max(_ALWAYS_FINE_BYTES, _LARGEST_RATIO * path.stat().st_size)
    if size > limit or len(entries) > _MOST_ENTRIES:
        raise damaged(str(path), f"a zip of {len(entries)} files that unpacks to {size} bytes")
    if size > free_bytes:
        raise RunError(
            "cannot unpack the bundle",
            where=str(path),
            found=f"{free_bytes} bytes of room for temporary files",
            expected=f"at least {size}",
            fix="Free some space, or unpack it yourself and pass the folder",
        )
