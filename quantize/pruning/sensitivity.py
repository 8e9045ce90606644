"""How much to remove from each layer, by what removing it does to the network's outputs: measured, without labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgewise.quantize.keeping import Samples
from edgewise.quantize.walking import Arrays, Walk

if TYPE_CHECKING:
    from edgewise.runtime.data import Dataset

_PROBES = 64  # samples of every probe


@dataclass
class Curve:
    """What a layer's sparsities cost: the error of the network's outputs, and what is left to compute or to store.

    ``sparsities`` ascend from 0, where the error is 0.
    """

    sparsities: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)

    def hull(self) -> list[int]:
        """The points that a best choice for some price can be: the lower convex hull of error over load."""
        errors = np.maximum.accumulate(self.errors)
        kept: list[int] = []
        for index in range(len(self.sparsities)):
            while len(kept) > 1 and self._slope(errors, kept[-2], kept[-1]) >= self._slope(errors, kept[-1], index):
                kept.pop()
            kept.append(index)
        return kept

    def _slope(self, errors: np.ndarray, start: int, end: int) -> float:
        return float(errors[end] - errors[start]) / max(self.loads[start] - self.loads[end], 1e-30)


class Probe:
    """Compares a network in which the weights of one layer are changed in place with its outputs before.

    What comes before the layer is computed once for all probes, what comes behind it for each.

    Args:
        model: whose weights are changed, and put back.
        data: samples; 64 of them are used, and read once.
    """

    def __init__(self, model: ir.Model, data: Dataset) -> None:
        self._outputs = list(model.graph.outputs)
        self._walk = Walk(model, Samples(sample.inputs for sample in data.take(_PROBES)))
        self._before = list(self._made())

    def reach(self, read: ir.Value) -> None:
        """Come to the layers that read a tensor; they and all behind them are as they were."""
        self._walk.values([read])

    def error(self) -> float:
        """Squared error of the outputs over their squares, mean over the outputs."""
        errors: dict[str, float] = {}
        squares: dict[str, float] = {}
        for now, before in zip(self._made(), self._before, strict=True):
            for name, array in before.items():
                wanted = array.astype(np.float64)
                # An output that comes before the layer is what it was.
                lost = float(np.square(now[name] - wanted).sum()) if name in now else 0.0
                errors[name] = errors.get(name, 0.0) + lost
                squares[name] = squares.get(name, 0.0) + float(np.square(wanted).sum())
        return float(np.mean([errors[name] / max(squares[name], 1e-30) for name in errors]))

    def _made(self) -> Iterator[Arrays]:
        for made in self._walk.ahead(self._walk.to_come(self._outputs)):
            yield {name: array for name, array in made.items() if array.dtype.kind == "f"}


def grid(sparsity: float) -> list[float]:
    """The sparsities to try in each layer around the one asked for over all."""
    return [0.5 * sparsity, 0.75 * sparsity, sparsity, *(1 - (1 - sparsity) * part for part in (0.75, 0.5, 0.3))]


def share_out(curves: Sequence[Curve], load: float) -> list[float]:
    """A sparsity per layer, with the least sum of errors, that leaves at most ``load`` over all layers.

    The steps of all hulls, cheapest first: error gained per load taken off. Between two measured points of the last layer
    a straight line is taken.
    """
    chosen = [0.0] * len(curves)
    left = sum(curve.loads[0] for curve in curves)
    steps = sorted(_steps(curves))
    for _, layer, start, end in steps:
        curve = curves[layer]
        gain = curve.loads[start] - curve.loads[end]
        part = min(1.0, (left - load) / gain) if gain > 0 else 0.0
        if part <= 0:
            break
        chosen[layer] = curve.sparsities[start] + part * (curve.sparsities[end] - curve.sparsities[start])
        left -= part * gain
    return chosen


def _steps(curves: Sequence[Curve]) -> Iterator[tuple[float, int, int, int]]:
    for layer, curve in enumerate(curves):
        points = curve.hull()
        for start, end in pairwise(points):
            rise = max(curve.errors[: end + 1]) - max(curve.errors[: start + 1])
            yield rise / max(curve.loads[start] - curve.loads[end], 1e-30), layer, start, end
