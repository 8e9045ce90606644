"""Samples from ``.npz`` and ``.npy``, read row by row; nothing is ever unpickled."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from edgewise.runtime.data.dataset import Dataset, Sample, fit
from edgewise.runtime.errors import RunError
from edgewise.runtime.tensors import TensorSpec

LABEL = "label"


def array_data(path: Path, inputs: Sequence[TensorSpec]) -> Dataset:
    """The samples of a ``.npz`` (arrays by input name, optional ``label``) or a ``.npy`` (the only input).

    The first axis of every array counts the samples, whether it is the network's batch dim or stands before its dims.

    Raises:
        RunError: an input is missing, objects instead of numbers, unequal counts, another dtype or shape, a cut file.
    """
    arrays = _npy(path, inputs) if path.suffix == ".npy" else _npz(path, inputs)
    counts = {name: rows.shape[0] for name, rows in arrays.items()}
    if len(set(counts.values())) != 1:
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise _unusable(str(path), f"unequal numbers of samples: {found}", "the same length of the first axis")
    for spec in inputs:
        arrays[spec.name].check_rank(spec)
    return Dataset(str(path), next(iter(counts.values())), lambda wanted: _read(path, arrays, inputs, wanted))


class _Rows:
    """One stored array whose rows are read one after the other.

    Args:
        where: the file and array, for messages.
        open_file: opens the ``.npy`` stream from its start.
        size: length of that stream in bytes.
    """

    def __init__(self, where: str, open_file: Callable[[], IO[bytes]], size: int) -> None:
        self.where, self._open = where, open_file
        with _explain(where), open_file() as file:
            self.shape, fortran, self.dtype = _read_header(file)
            self._offset = file.tell()
        if self.dtype.hasobject:
            raise _unusable(where, "Python objects, which would have to be unpickled", "an array of numbers")
        if not self.shape or min(self.shape) < 0:
            raise _unusable(where, f"shape {list(self.shape)}", "a first axis that counts the samples")
        if fortran:
            raise _unusable(where, "Fortran order", "C order", "Save it through numpy.ascontiguousarray")
        self._row_bytes = self.dtype.itemsize * _product(self.shape[1:])
        if size != self._offset + self.shape[0] * self._row_bytes:
            raise _unusable(
                where, f"{size} bytes", f"{self._offset + self.shape[0] * self._row_bytes} for {self.dtype}{list(self.shape)}"
            )  # fmt: skip

    def check_rank(self, spec: TensorSpec) -> None:
        if len(self.shape) - len(spec.shape) not in (0, 1):
            raise _unusable(
                self.where,
                f"{self.dtype.name}{list(self.shape)}",
                f"a first axis of samples and then {spec.dtype}{list(spec.shape)}".replace("'", ""),
            )

    def read(self, wanted: Sequence[int]) -> Iterator[np.ndarray]:
        with _explain(self.where), self._open() as file:
            for index in wanted:
                file.seek(self._offset + index * self._row_bytes)
                data = file.read(self._row_bytes)
                if len(data) != self._row_bytes:
                    raise _unusable(self.where, f"a file that ends within sample {index}", "a whole file")
                yield np.frombuffer(bytearray(data), self.dtype).reshape(self.shape[1:])


def _read(
    path: Path, arrays: dict[str, _Rows], inputs: Sequence[TensorSpec], wanted: Sequence[int]
) -> Iterator[Sample]:
    with ExitStack() as stack:
        streams = {name: rows.read(wanted) for name, rows in arrays.items()}
        for stream in streams.values():
            stack.callback(stream.close)  # type: ignore[attr-defined]
        for index in wanted:
            row = {name: next(stream) for name, stream in streams.items()}
            label = int(row.pop(LABEL)) if LABEL in row and LABEL not in {spec.name for spec in inputs} else None
            where = f"{path}, sample {index}"
            yield Sample({spec.name: fit(row[spec.name], spec, where) for spec in inputs}, label)


def _npy(path: Path, inputs: Sequence[TensorSpec]) -> dict[str, _Rows]:
    if len(inputs) != 1:
        raise _unusable(
            str(path), "one array", f"one for each of {', '.join(spec.name for spec in inputs)}", "Use .npz with arrays by name"
        )  # fmt: skip
    return {inputs[0].name: _Rows(str(path), lambda: path.open("rb"), path.stat().st_size)}


def _npz(path: Path, inputs: Sequence[TensorSpec]) -> dict[str, _Rows]:
    with _explain(str(path)), zipfile.ZipFile(path) as archive:
        sizes = {entry.filename.removesuffix(".npy"): entry.file_size for entry in archive.infolist()}
    names = [spec.name for spec in inputs]
    if missing := [name for name in names if name not in sizes]:
        raise _unusable(
            str(path),
            f"no array {missing[0]!r}, only {', '.join(sizes) or 'nothing'}",
            f"arrays named {', '.join(names)}",
            "Save it with numpy.savez and the network's input names",
        )
    arrays = {name: _Rows(f"{path}, array {name!r}", _opener(path, name), sizes[name]) for name in names}
    if LABEL in sizes and LABEL not in names:
        label = arrays[LABEL] = _Rows(f"{path}, array {LABEL!r}", _opener(path, LABEL), sizes[LABEL])
        if label.dtype.kind not in "iu" or len(label.shape) != 1:
            raise _unusable(label.where, f"{label.dtype.name}{list(label.shape)}", "one integer per sample")
    return arrays


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


def _product(dims: tuple[int, ...]) -> int:
    product = 1
    for dim in dims:
        product *= dim
    return product


@contextmanager
def _explain(where: str) -> Iterator[None]:
    """Turn what zipfile and numpy raise on broken files into an error that names the array."""
    try:
        yield
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise _unusable(where, f"{type(error).__name__}: {error}", "a file written by numpy") from error
    except RuntimeError as error:  # zipfile's way to say that an entry is encrypted
        raise _unusable(where, str(error), "a zip without a password") from error


def _unusable(where: str, found: str, expected: str, fix: str = "Save the data again with numpy.savez") -> RunError:
    return RunError("cannot use the data", where=where, found=found, expected=expected, fix=fix)
