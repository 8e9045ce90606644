"""Stored numpy arrays (``.npy`` and the members of ``.npz``), read row by row or whole; nothing is ever unpickled."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgewise.runtime.errors import RunError

# What zipfile raises on a zip that is cut, changed, hostile or encrypted (the last is a RuntimeError).
ZIP_ERRORS = (OSError, ValueError, EOFError, KeyError, RuntimeError, OverflowError, zipfile.BadZipFile, zlib.error)


class StoredArray:
    """One array in a file; its header is read and checked against the file's size, its content is not read yet.

    Args:
        where: the file and array, for messages.
        open_file: opens the ``.npy`` stream from its start.
        size: length of that stream in bytes.

    Raises:
        RunError: not written by numpy, cut, Python objects, or in Fortran order.
    """

    def __init__(self, where: str, open_file: Callable[[], IO[bytes]], size: int) -> None:
        self.where, self._open = where, open_file
        with _explain(where), open_file() as file:
            self.shape, fortran, self.dtype = _read_header(file)
            self._offset = file.tell()
        if self.dtype.hasobject:
            raise _unreadable(where, "Python objects, which would have to be unpickled", "an array of numbers")
        if fortran:
            raise _unreadable(where, "Fortran order", "C order", "Save it through numpy.ascontiguousarray")
        expected = self._offset + self.nbytes
        if min(self.shape, default=0) < 0 or size != expected:
            raise _unreadable(where, f"{size} bytes", f"{expected} for {self.dtype}{list(self.shape)}")

    @property
    def nbytes(self) -> int:
        """Size of the array in bytes."""
        return self.dtype.itemsize * math.prod(self.shape)

    def whole(self) -> np.ndarray:
        """The array.

        Raises:
            RunError: the file is damaged.
        """
        with _explain(self.where), self._open() as file:
            file.seek(self._offset)
            return self._array(file.read(), self.shape, "its end")

    def rows(self, wanted: Sequence[int]) -> Iterator[np.ndarray]:
        """The entries along the first axis with the given indices, which ascend; one in memory at a time.

        Raises:
            RunError: the file is damaged.
        """
        size = self.dtype.itemsize * math.prod(self.shape[1:])
        with _explain(self.where), self._open() as file:
            for index in wanted:
                file.seek(self._offset + index * size)
                yield self._array(file.read(size), self.shape[1:], f"row {index}")

    def _array(self, data: bytes, shape: tuple[int, ...], what: str) -> np.ndarray:
        if len(data) != self.dtype.itemsize * math.prod(shape):
            raise _unreadable(self.where, f"a file that stops before {what}", "a whole file")
        return np.frombuffer(bytearray(data), self.dtype).reshape(shape)


def stored_npy(path: Path) -> StoredArray:
    """The array of a ``.npy`` file.

    Raises:
        RunError: as :class:`StoredArray`.
    """
    with _explain(str(path)):
        size = path.stat().st_size
    return StoredArray(str(path), lambda: path.open("rb"), size)


def stored_npz(path: Path, names: Sequence[str] | None = None) -> dict[str, StoredArray]:
    """The arrays of a ``.npz`` file by name; with ``names`` those of them that are there.

    Raises:
        RunError: not a zip, or as :class:`StoredArray`.
    """
    with _explain(str(path)), zipfile.ZipFile(path) as archive:
        sizes = {entry.filename.removesuffix(".npy"): entry.file_size for entry in archive.infolist()}
    chosen = sizes if names is None else [name for name in names if name in sizes]
    return {name: StoredArray(f"{path}, array {name!r}", _opener(path, name), sizes[name]) for name in chosen}


def names_in_npz(path: Path) -> list[str]:
    """The arrays that a ``.npz`` file holds.

    Raises:
        RunError: not a zip.
    """
    with _explain(str(path)), zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def _opener(path: Path, name: str) -> Callable[[], IO[bytes]]:
    def open_member() -> IO[bytes]:
        # The stream keeps the underlying file open for as long as it needs it.
        with zipfile.ZipFile(path) as archive:
            return archive.open(f"{name}.npy")

    return open_member


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f"version {version} of the .npy format")
    shape, fortran, dtype = readers[version](file)
    return shape, fortran, dtype


@contextmanager
def _explain(where: str) -> Iterator[None]:
    """Turn what zipfile and numpy raise on broken files into an error that names the array."""
    try:
        yield
    except ZIP_ERRORS as error:
        raise _unreadable(where, f"{type(error).__name__}: {error}", "a file written by numpy") from error


def _unreadable(where: str, found: str, expected: str, fix: str = "Save it again with numpy.savez") -> RunError:
    return RunError("cannot read the array", where=where, found=found, expected=expected, fix=fix)
