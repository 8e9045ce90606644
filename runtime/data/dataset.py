"""A data set: samples in a fixed order, read anew in every pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgewise.runtime.errors import RunError
from edgewise.runtime.tensors import TensorSpec


@dataclass(frozen=True)
class Sample:
    """Arrays by input name, as the network takes them (batch dim 1), and the class if known."""

    inputs: dict[str, np.ndarray]
    label: int | None


class Dataset:
    """Samples that are read from their source in every pass; ``len()`` tells how many.

    Args:
        source: where they come from, for messages and manifests.
        count: how many the source has, at least 1.
        read: yields the samples with the given indices, which ascend.
        random: whether the samples are made up.

    Raises:
        RunError: the source has no samples.
    """

    def __init__(
        self, source: str, count: int, read: Callable[[Sequence[int]], Iterator[Sample]], *, random: bool = False
    ) -> None:
        if count < 1:
            raise no_samples(source)
        self.source, self.random = source, random
        self._read = read
        self._indices: Sequence[int] = range(count)

    @property
    def known_length(self) -> int | None:
        """How many samples there are, or None where telling would cost a pass over the data."""
        return len(self._indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[Sample]:
        return self._read(self._indices)

    def take(self, count: int) -> Dataset:
        """At most ``count`` samples, spread evenly: sources are often sorted by class."""
        have = len(self._indices)
        if count >= have:
            return self
        part = Dataset(self.source, have, self._read, random=self.random)
        part._indices = [self._indices[i * have // count] for i in range(count)]
        return part


def no_samples(source: str) -> RunError:
    """The error for a source without a single sample."""
    return RunError(
        "cannot use the data", where=source, found="no samples", expected="at least one", fix="Check that it is the right source"
    )  # fmt: skip


def fit(array: np.ndarray, spec: TensorSpec, where: str, fix: str = "") -> np.ndarray:
    """The array with the rank of ``spec``: a batch dim of 1 is added or dropped where that makes it fit.

    Raises:
        RunError: another dtype or shape.
    """
    rank = len(spec.shape)
    if array.ndim == rank - 1:
        array = array[None]
    elif array.ndim == rank + 1 and array.shape[0] == 1:
        array = array[0]
    spec.check(array, where, fix)
    # Files may hold another byte order, which a dtype's name does not tell.
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")
