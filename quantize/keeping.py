"""Arrays of many samples, kept in memory while they are small and in a file beyond."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

_IN_MEMORY = 8 << 20  # bytes of a column; beyond, it moves to a file that nobody else sees and that goes with it


@dataclass(frozen=True)
class _Place:
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


class Column(Sequence[np.ndarray]):
    """One tensor of all samples, read back one sample at a time: memory does not grow with their number."""

    def __init__(self, arrays: Iterable[np.ndarray] = ()) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - closed with the column
        self._places: list[_Place] = []
        self._end = 0
        for array in arrays:
            self.append(array)

    def append(self, array: np.ndarray) -> None:
        """One more sample's."""
        data = np.ascontiguousarray(array)
        self._file.seek(self._end)
        self._file.write(data.tobytes())
        self._places.append(_Place(self._end, np.shape(array), data.dtype))
        self._end += data.nbytes

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        place = self._places[index]
        self._file.seek(place.offset)
        size = int(np.prod(place.shape, dtype=np.int64)) * place.dtype.itemsize
        return np.frombuffer(self._file.read(size), place.dtype).reshape(place.shape)


class Samples(Sequence[dict[str, np.ndarray]]):
    """Inputs by name, one entry a sample, the same at every pass whatever their source does.

    Args:
        samples: read once.
    """

    def __init__(self, samples: Iterable[Mapping[str, np.ndarray]]) -> None:
        self._columns: dict[str, Column] = {}
        self._places: list[dict[str, int]] = []  # by input, for a sample may lack one
        for sample in samples:
            for name, array in sample.items():
                self._columns.setdefault(name, Column()).append(array)
            self._places.append({name: len(self._columns[name]) - 1 for name in sample})

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> dict[str, np.ndarray]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, np.ndarray]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, np.ndarray] | list[dict[str, np.ndarray]]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        return {name: self._columns[name][at] for name, at in self._places[index].items()}
