"""DATA of the command line: samples for calibration, comparison and evaluation, one at a time."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

from edgewise.runtime.data.arrays import array_data
from edgewise.runtime.data.calls import CallableDataset
from edgewise.runtime.data.dataset import Dataset, Sample
from edgewise.runtime.data.images import image_data
from edgewise.runtime.data.synthetic import random_data
from edgewise.runtime.errors import RunError
from edgewise.runtime.preprocess import Preprocess
from edgewise.runtime.tensors import TensorSpec

__all__ = ["Dataset", "Sample", "open_data", "random_data"]

_FORMS = ".npz, .npy, a folder or zip of images, or module:callable"


def open_data(
    source: str,
    inputs: Sequence[TensorSpec],
    preprocess: Preprocess | None = None,
    *,
    limit: int | None = None,
) -> Dataset:
    """Open DATA for a network's inputs. Nothing is held in memory but the sample at hand.

    Args:
        source: ``.npz`` (arrays by input name, the first axis counts samples; optional integers ``label``), ``.npy`` (the
            only input), a folder or zip of images, ``module:callable`` or ``path.py:callable`` (called without arguments
            for every pass; yields one dict per sample, arrays by input name and an optional ``label``).
        inputs: what the network takes; every sample is checked against it.
        preprocess: what to do with images; arrays are taken as they are.
        limit: use this many samples, spread evenly over the source (the first ones of a callable).

    Raises:
        RunError: missing, empty, broken or of another form; the sample and what is wrong with it are named. Samples are
            checked as they are read, so iteration raises it too.
        MissingExtraError: images without Pillow.
    """
    if limit is not None and limit < 1:
        raise _unusable(source, f"a limit of {limit}", "at least 1 sample", "Raise the limit")
    data = _open(source, inputs, preprocess)
    return data if limit is None else data.take(limit)


def _open(source: str, inputs: Sequence[TensorSpec], preprocess: Preprocess | None) -> Dataset:
    path = Path(source)
    if path.is_dir():
        return image_data(path, inputs, preprocess)
    if not path.is_file():
        if ":" in source:
            return CallableDataset(source, inputs)
        raise _unusable(source, "no such file or folder", _FORMS, "Check the path")
    if path.suffix.lower() in (".npz", ".npy"):
        return array_data(path, inputs)
    if zipfile.is_zipfile(path):
        return image_data(path, inputs, preprocess)
    raise _unusable(source, f"a file {path.suffix or 'without a suffix'} that is no zip", _FORMS, "Convert it to .npz")


def _unusable(source: str, found: str, expected: str, fix: str) -> RunError:
    return RunError("cannot use the data", where=source, found=found, expected=expected, fix=fix)
