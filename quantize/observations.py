"""What was seen of a network's tensors, kept for whoever asks the same again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.streaming import BUDGET, watch
from edgewise.runtime.onnx_file import to_bytes
from edgewise.runtime.progress import Progress

if TYPE_CHECKING:
    from edgewise.runtime.data import Dataset


class Observing(Protocol):
    """Reduces a tensor, piece by piece; two of the same ``kind`` that see the same values end up the same."""

    @property
    def kind(self) -> str:
        """How it reduces."""

    def update(self, values: NDArray[np.float32]) -> None:
        """See one more piece; finite."""


_Seen = TypeVar("_Seen", bound=Observing)


@dataclass(frozen=True)
class Observed(Generic[_Seen]):
    """What came of the values, in the order in which they were asked for, and from how many samples. Only to be read."""

    seen: list[_Seen]
    samples: int


class Observations:
    """Watches graphs over samples, and answers from memory what was asked before.

    Targets often want other integers of one graph: before they part, the same tensors are looked at for each of them. What is
    kept goes by all that it depends on: the graph with its weights, the samples' bytes, the tensors, and how each is reduced.
    Only the very same question counts as asked before, with the same tensors together, since ONNX Runtime merges other
    operators where other tensors are asked for: a target's bytes do not depend on the targets before it.

    Memory: what the tensors were reduced to, not the tensors themselves.

    Args:
        remember: False: everything is computed, and nothing is hashed.
    """

    def __init__(self, *, remember: bool = True) -> None:
        self._remember = remember
        self._kept: dict[str, Observed[Any]] = {}
        # The samples hashed last: balancing and calibration read the same.
        self._hashed: tuple[Dataset, str] | None = None

    def watch(
        self,
        model: ir.Model,
        watched: Mapping[ir.Value, _Seen],
        data: Dataset,
        *,
        task: str,
        progress: Progress,
        budget: int = BUDGET,
    ) -> Observed[_Seen]:
        """What each value comes to over the samples: ``watched`` itself the first time, else what was kept.

        Raises:
            QuantizeError: NaN or infinity in the data or in a watched value.
            RunError: ONNX Runtime refuses the model, or the data does not fit its inputs.
        """
        key = self._key(model, watched, data, budget) if self._remember and watched else ""
        if key in self._kept:
            return self._kept[key]
        watchers = {value: each.update for value, each in watched.items()}
        used = watch(model, watchers, data, task=task, progress=progress, budget=budget)
        found = Observed(list(watched.values()), used)
        if key:
            self._kept[key] = found
        return found

    def _key(self, model: ir.Model, watched: Mapping[ir.Value, Observing], data: Dataset, budget: int) -> str:
        digest = hashlib.sha256(to_bytes(model, f"model {model.graph.name!r}"))
        digest.update(repr([(value.name, each.kind) for value, each in watched.items()]).encode())
        digest.update(f"{budget} {self._samples(data)}".encode())
        return digest.hexdigest()

    def _samples(self, data: Dataset) -> str:
        if self._hashed is None or self._hashed[0] is not data:
            self._hashed = data, _digest(data)
        return self._hashed[1]


def _digest(data: Dataset) -> str:
    """Hex sha256 of all samples' inputs."""
    digest = hashlib.sha256()
    for sample in data:
        for name, array in sorted(sample.inputs.items()):
            digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()
