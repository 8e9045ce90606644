"""Samples from a folder or zip of images."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np

from edgewise.runtime.data.dataset import Dataset, Sample, fit
from edgewise.runtime.errors import EdgewiseError, RunError
from edgewise.runtime.extras import needs
from edgewise.runtime.npy import ZIP_ERRORS
from edgewise.runtime.preprocess import Preprocess
from edgewise.runtime.tensors import TensorSpec

_SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
_LARGEST_FILE_BYTES = 1 << 29
_NUMBER = re.compile(r"\d+")

ReadFile = Callable[[str], bytes]


def image_data(path: Path, inputs: Sequence[TensorSpec], preprocess: Preprocess | None) -> Dataset:
    """The images of a folder or zip, in the order of their names, with their labels.

    A label is the number that the file's name begins with. Where the files lie in sub folders it is the index of the
    (outermost) folder among the sorted ones, or the folder's name where all of them are numbers. One folder around
    everything counts as none. Files in both places have no labels.

    Raises:
        RunError: no images, no preprocessing, several inputs, or (when read) an image that is broken or does not fit.
        MissingExtraError: Pillow is not installed.
    """
    with needs("images"):
        import PIL.Image  # noqa: F401 - to fail here and not at the first sample
    if len(inputs) != 1:
        raise _unusable(
            str(path), "images", f"arrays for the inputs {', '.join(spec.name for spec in inputs)}", "Use .npz or module:callable"
        )  # fmt: skip
    names = _names_in_folder(path) if path.is_dir() else _names_in_zip(path)
    if not names:
        raise _unusable(str(path), "no images", f"files such as {', '.join(sorted(_SUFFIXES))}", "Check the path")
    if preprocess is None:
        raise _unusable(
            str(path), "images and no preprocessing", "how they become the network's input",
            "Add --preprocess resize=256,crop=224,color=rgb,scale=255,mean=…,std=… as in the network's training",
        )  # fmt: skip
    labels = _labels(names)
    prepare, spec = preprocess, inputs[0]

    def read(wanted: Sequence[int]) -> Iterator[Sample]:
        with _reader(path) as read_file:
            for index in wanted:
                where = f"{path}, image {names[index]}"
                yield Sample({spec.name: _load(read_file, names[index], prepare, spec, where)}, labels[index])

    return Dataset(str(path), len(names), read)


def _names_in_folder(path: Path) -> list[str]:
    files = (file.relative_to(path) for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file())
    return sorted(file.as_posix() for file in files if _wanted(PurePosixPath(file.as_posix())))


def _names_in_zip(path: Path) -> list[str]:
    with _opened_zip(path) as archive:
        return sorted({entry.filename for entry in archive.infolist() if _wanted(PurePosixPath(entry.filename))})


def _wanted(name: PurePosixPath) -> bool:
    """Neither hidden files nor the shadow files that macOS puts into zips."""
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in name.parts)
    return name.suffix.lower() in _SUFFIXES and not hidden


def _labels(names: list[str]) -> list[int | None]:
    parts = [PurePosixPath(name).parts for name in names]
    while min(map(len, parts)) > 1 and len({part[0] for part in parts}) == 1:
        parts = [part[1:] for part in parts]
    if max(map(len, parts)) == 1:
        numbers = [_NUMBER.match(part[0]) for part in parts]
        return [int(number[0]) if number else None for number in numbers]
    if min(map(len, parts)) == 1:
        return [None] * len(parts)
    classes = sorted({part[0] for part in parts})
    if all(name.isdecimal() for name in classes):
        return [int(part[0]) for part in parts]
    index = {name: number for number, name in enumerate(classes)}
    return [index[part[0]] for part in parts]


@contextmanager
def _reader(path: Path) -> Iterator[ReadFile]:
    if path.is_dir():
        yield lambda name: (path / name).read_bytes()
        return
    with _opened_zip(path) as archive:

        def read(name: str) -> bytes:
            size = archive.getinfo(name).file_size
            if size > _LARGEST_FILE_BYTES:
                raise ValueError(f"{size} bytes, more than {_LARGEST_FILE_BYTES}")
            return archive.read(name)

        yield read


@contextmanager
def _opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except ZIP_ERRORS as error:
        raise _unusable(
            str(path), f"{type(error).__name__}: {error}", "a zip of images", "Copy the zip again"
        ) from error
    with archive:
        yield archive


def _load(read_file: ReadFile, name: str, prepare: Preprocess, spec: TensorSpec, where: str) -> np.ndarray:
    with needs("images"):
        from PIL import Image
    try:
        with Image.open(io.BytesIO(read_file(name))) as image:
            image.load()
            pixels = prepare(image)
    except EdgewiseError as error:
        raise RunError(
            error.what, where=where, found=error.found, expected=error.expected, fix=error.fix
        ) from error  # fmt: skip
    except Exception as error:  # Pillow's decoders raise what they like, from struct.error to SyntaxError
        found = f"{type(error).__name__}: {error}"
        raise _unusable(where, found, "an image that can be read", "Replace or remove it") from error
    return fit(
        _cast(pixels, spec), spec, where, "Make it fit with resize and crop in --preprocess, in HEIGHTxWIDTH if need be"
    )


def _cast(pixels: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Other floating types, and bytes where the pixels are still bytes; everything else is left to the check."""
    if spec.dtype in ("float16", "float64"):
        return pixels.astype(spec.dtype)
    if spec.dtype != "uint8" or not 0 <= pixels.min() <= pixels.max() <= 255:
        return pixels
    whole = pixels.astype(np.uint8)
    return whole if np.array_equal(whole, pixels) else pixels


def _unusable(where: str, found: str, expected: str, fix: str) -> RunError:
    return RunError("cannot use the data", where=where, found=found, expected=expected, fix=fix)
