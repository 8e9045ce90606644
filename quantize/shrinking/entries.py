"""Which entries of which axes can only be removed together: a partition of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Ids = NDArray[np.intp]


@dataclass(frozen=True)
class Stay:
    """Why entries stay; ``layer`` is the name of the layer that has the reason of its own, empty for other nodes."""

    reason: str
    layer: str = ""


class Entries:
    """One id per entry of an axis; ids that are bound go together (after G. Fang et al., "DepGraph", CVPR 2023, by entry).

    ::

        Conv[4 ← 3] ─► Concat ─► Conv[2 ← 6]       entry 1 of the first convolution's outputs is bound to
        Conv[2 ← 3] ─►┘                            entry 1 of the last one's inputs, entry 0 of the second to entry 4
    """

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._spans: dict[tuple[ir.Value, int], Ids] = {}
        self._stays: dict[int, Stay] = {}
        self._marks: dict[str, list[Ids]] = {}

    def of(self, value: ir.Value | None, axis: int) -> Ids | None:
        """The ids along an axis; None where its size is not known."""
        size = size_of(value, axis)
        if value is None or size is None:
            return None
        key = (value, axis % rank_of(value))
        if key not in self._spans:
            start = len(self._parents)
            self._parents.extend(range(start, start + size))
            self._spans[key] = np.arange(start, start + size)
        return self._spans[key]

    def bind(self, these: Ids | None, those: Ids | None) -> None:
        """Entry by entry; axes of unknown size are bound to nothing, for nothing of them is ever removed."""
        if these is None or those is None:
            for ids in (these, those):
                self.freeze(ids, Stay("its channels meet an axis of unknown size"))
            return
        for one, other in zip(these.tolist(), those.tolist(), strict=True):
            self._unite(one, other)

    def freeze(self, ids: Ids | None, stay: Stay) -> None:
        """These entries stay; the first reason is the one that is told."""
        for each in () if ids is None else ids.tolist():
            self._stays.setdefault(self._root(each), stay)

    def mark(self, name: str, ids: Ids | None) -> None:
        """Remember that these entries run through something of that name."""
        if ids is not None:
            self._marks.setdefault(name, []).append(ids)

    def marked(self, name: str) -> set[int]:
        """The classes with a mark."""
        return {self._root(each) for ids in self._marks.get(name, []) for each in ids.tolist()}

    def stay(self, entry: int) -> Stay | None:
        """Why the class of an entry stays; None when it may go."""
        return self._stays.get(self._root(entry))

    def frozen(self, ids: Ids | None) -> bool:
        """Whether any of them stays."""
        return ids is None or any(self._root(each) in self._stays for each in ids.tolist())

    def classes(self, ids: Sequence[int] | Ids) -> list[int]:
        """The class of each id."""
        return [self._root(int(each)) for each in ids]

    def spans(self) -> Iterator[tuple[ir.Value, int, Ids]]:
        """Every axis that was looked at."""
        for (value, axis), ids in self._spans.items():
            yield value, axis, ids

    def _root(self, entry: int) -> int:
        while self._parents[entry] != entry:
            self._parents[entry] = self._parents[self._parents[entry]]
            entry = self._parents[entry]
        return entry

    def _unite(self, one: int, other: int) -> None:
        one, other = sorted((self._root(one), self._root(other)))
        if one == other:
            return
        self._parents[other] = one
        if other in self._stays:
            self._stays.setdefault(one, self._stays[other])


def rank_of(value: ir.Value | None) -> int:
    """How many axes; -1 when not known."""
    return len(value.shape) if value is not None and value.shape is not None else -1


def size_of(value: ir.Value | None, axis: int) -> int | None:
    """The length of an axis; None when it is not known."""
    rank = rank_of(value)
    if value is None or value.shape is None or not -rank <= axis < rank:
        return None
    dim = value.shape[axis]
    return dim if isinstance(dim, int) else None
