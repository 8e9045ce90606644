"""Samples from ``.npz`` and ``.npy``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from edgewise.runtime.data.dataset import Dataset, Sample, fit
from edgewise.runtime.errors import RunError
from edgewise.runtime.npy import StoredArray, names_in_npz, stored_npy, stored_npz
from edgewise.runtime.tensors import TensorSpec

LABEL = "label"


def array_data(path: Path, inputs: Sequence[TensorSpec]) -> Dataset:
    """The samples of a ``.npz`` (arrays by input name, optional ``label``) or a ``.npy`` (the only input).

    The first axis of every array counts the samples, whether it is the network's batch dim or stands before its dims.

    Raises:
        RunError: an input is missing, objects instead of numbers, unequal counts, another dtype or shape, a cut file.
    """
    arrays, labels = _npy(path, inputs) if path.suffix.lower() == ".npy" else _npz(path, inputs)
    for spec in inputs:
        _check_rank(arrays[spec.name], spec)
    stored = arrays | ({LABEL: labels} if labels else {})
    counts = {name: array.shape[0] for name, array in stored.items()}
    if len(set(counts.values())) != 1:
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise _unusable(str(path), f"unequal numbers of samples: {found}", "the same length of the first axis")

    def read(wanted: Sequence[int]) -> Iterator[Sample]:
        streams = {name: array.rows(wanted) for name, array in arrays.items()}
        classes = labels.rows(wanted) if labels else None
        for index in wanted:
            where = f"{path}, sample {index}"
            sample = {spec.name: fit(next(streams[spec.name]), spec, where) for spec in inputs}
            yield Sample(sample, int(next(classes)) if classes else None)

    return Dataset(str(path), next(iter(counts.values())), read)


def _npy(path: Path, inputs: Sequence[TensorSpec]) -> tuple[dict[str, StoredArray], None]:
    if len(inputs) != 1:
        wanted = f"one for each of {', '.join(spec.name for spec in inputs)}"
        raise _unusable(str(path), "one array", wanted, "Use .npz with arrays by name")
    return {inputs[0].name: stored_npy(path)}, None


def _npz(path: Path, inputs: Sequence[TensorSpec]) -> tuple[dict[str, StoredArray], StoredArray | None]:
    names = [spec.name for spec in inputs]
    have = names_in_npz(path)
    if missing := [name for name in names if name not in have]:
        raise _unusable(
            str(path),
            f"no array {missing[0]!r}, only {', '.join(have) or 'nothing'}",
            f"arrays named {', '.join(names)}",
            "Save it with numpy.savez and the network's input names",
        )
    arrays = stored_npz(path, [*names, LABEL])
    labels = arrays.pop(LABEL) if LABEL in arrays and LABEL not in names else None
    if labels and (labels.dtype.kind not in "iu" or len(labels.shape) != 1):
        raise _unusable(labels.where, f"{labels.dtype.name}{list(labels.shape)}", "one integer per sample")
    return arrays, labels


def _check_rank(array: StoredArray, spec: TensorSpec) -> None:
    rank = len(array.shape)
    if rank == 0 or rank - len(spec.shape) not in (0, 1):
        wanted = f"a first axis of samples and then {spec.dtype}{list(spec.shape)}".replace("'", "")
        raise _unusable(array.where, f"{array.dtype.name}{list(array.shape)}", wanted)


def _unusable(where: str, found: str, expected: str, fix: str = "Save the data again with numpy.savez") -> RunError:
    return RunError("cannot use the data", where=where, found=found, expected=expected, fix=fix)
