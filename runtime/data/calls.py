"""Samples from a user's function."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from edgewise.runtime.callables import find_callable
from edgewise.runtime.data.arrays import LABEL
from edgewise.runtime.data.dataset import Dataset, Sample, fit, no_samples
from edgewise.runtime.errors import RunError
from edgewise.runtime.tensors import TensorSpec


class CallableDataset(Dataset):
    """What ``module:callable`` yields: one dict per sample, arrays by input name and an optional integer ``label``.

    The callable is called without arguments, once for every pass. Arrays may lack a batch dim of 1. ``len()``, and
    with it ``list()``, costs a pass over the data the first time.
    """

    def __init__(self, source: str, inputs: Sequence[TensorSpec], limit: int | None = None) -> None:
        self._make = find_callable(source, option="data")
        self.source, self.random = source, False
        self._inputs, self._limit = inputs, limit
        self._count: int | None = None

    @property
    def known_length(self) -> int | None:
        """How many samples there are; None before the first whole pass."""
        return self._count

    def __len__(self) -> int:
        return self._count if self._count is not None else sum(1 for _ in self)

    def __iter__(self) -> Iterator[Sample]:
        count = 0
        for item in islice(self._items(), self._limit):
            yield self._sample(item, f"{self.source}, sample {count}")
            count += 1
        if count == 0:
            raise no_samples(self.source)
        if self._count not in (None, count):
            raise _unusable(
                self.source, f"{count} samples", f"{self._count} as in the pass before", "Make the function start anew in every call"
            )  # fmt: skip
        self._count = count

    def take(self, count: int) -> Dataset:
        """The first ``count`` samples: how many there are in all is not known."""
        return CallableDataset(self.source, self._inputs, count if self._limit is None else min(count, self._limit))

    def _items(self) -> Iterator[Any]:
        try:
            made = self._make()
            if not isinstance(made, Iterable):
                raise _unusable(
                    self.source, f"a {type(made).__name__}", "dicts, one after the other", "Yield one per sample"
                )
            yield from made
        except RunError:
            raise
        except Exception as error:  # whatever the user's function does
            raise _unusable(
                self.source, f"{type(error).__name__}: {error}", "a function that yields samples", "Call it in Python to see the traceback"
            ) from error  # fmt: skip

    def _sample(self, item: Any, where: str) -> Sample:
        if not isinstance(item, Mapping):
            raise _unusable(
                where, f"a {type(item).__name__}", "a dict of arrays by input name", "Yield one dict per sample"
            )
        names = [spec.name for spec in self._inputs]
        if missing := [name for name in names if name not in item]:
            found = f"no {missing[0]!r}, only {', '.join(map(str, item)) or 'nothing'}"
            raise _unusable(where, found, f"arrays named {', '.join(names)}", "Yield the network's input names")
        arrays = {spec.name: fit(_array(item[spec.name], spec, where), spec, where) for spec in self._inputs}
        return Sample(arrays, None if LABEL in names else _label(item.get(LABEL), where))


def _array(value: Any, spec: TensorSpec, where: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except Exception as error:  # a tensor on another device, lists of unequal lengths
        raise _unusable(
            f"{where}, input {spec.name!r}", f"{type(error).__name__}: {error}", "a numpy array", "Convert it to one"
        ) from error  # fmt: skip
    return array


def _label(value: Any, where: str) -> int | None:
    try:
        return None if value is None else operator.index(value)
    except (TypeError, ValueError) as error:
        raise _unusable(f"{where}, label", f"a {type(value).__name__}", "an integer", "Yield label as int") from error


def _unusable(where: str, found: str, expected: str, fix: str) -> RunError:
    return RunError("cannot use the data", where=where, found=found, expected=expected, fix=fix)
