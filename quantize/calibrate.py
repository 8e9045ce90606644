"""Learning the range of each tensor, and with it the scale of each group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.movement import moved_inputs, moves
from edgewise.quantize.observations import Observations
from edgewise.quantize.observers import Observer, find_observer
from edgewise.quantize.plan import Plan
from edgewise.quantize.streaming import BUDGET
from edgewise.runtime.progress import Progress

if TYPE_CHECKING:
    from edgewise.runtime.data import Dataset

FEW = 8  # samples


def calibrate(
    model: ir.Model,
    plan: Plan,
    data: Dataset,
    *,
    method: str,
    progress: Progress,
    budget: int = BUDGET,
    observations: Observations | None = None,
) -> int:
    """Find the scale of every group of the plan; returns how many samples were used.

    Each tensor is reduced to an observer as soon as it is computed, so memory does not grow with the number of samples. What
    ``observations`` has of the same tensors is not computed again.

    Raises:
        QuantizeError: NaN or infinity in the data or in a tensor computed from it.
        RunError: ONNX Runtime refuses the model or the data does not fit its inputs.
    """
    groups = _taps(model.graph, plan)
    observers = {group: _observer(values, method) for group, values in groups.items()}
    watched = {value: _Changes(observers[group], group) for group, values in groups.items() for value in values}
    observations = observations or Observations(remember=False)
    found = observations.watch(model, watched, data, task="calibrate", progress=progress, budget=budget)
    changes = dict(zip(watched, found.seen, strict=True))
    for group, values in groups.items():
        grid = plan.grid(group)
        plan.scales[group] = grid.fit(*changes[values[0]].observer.range(grid))
    plan.notes.extend(_doubts(changes, found.samples))
    return found.samples


class _Changes:
    """Hands a tensor on, and watches whether it ever has two different values."""

    def __init__(self, observer: Observer, group: ir.Value) -> None:
        self.observer = observer
        self.kind = f"{type(observer).__name__} of {group.name}"
        self._first: np.float32 | None = None
        self.found = False

    def update(self, values: NDArray[np.float32]) -> None:
        """See one more piece."""
        if not self.found and values.size:
            self._first = values.flat[0] if self._first is None else self._first
            self.found = bool(np.any(values != self._first))
        self.observer.update(values)


def _doubts(changes: Mapping[ir.Value, _Changes], used: int) -> list[str]:
    """What makes ranges doubtful."""
    still = [str(value.name) for value, each in changes.items() if not each.found]
    found = [
        f"tensor {name!r} has one value on all calibration samples: its range means nothing for others"
        for name in still
    ]
    if changes and used < FEW:
        found.append(f"calibrated on {used} samples: ranges may be too narrow for others; a few dozen are enough")
    return found


def _taps(graph: ir.Graph, plan: Plan) -> dict[ir.Value, list[ir.Value]]:
    """Per group the tensors to observe; one that only moves values of its own group holds nothing new."""
    groups: dict[ir.Value, list[ir.Value]] = {}
    for value in [*graph.inputs, *(output for node in graph for output in node.outputs)]:
        if plan.is_rounded(value) and not _only_moves(value, plan):
            groups.setdefault(plan.group(value), []).append(value)
    return groups


def _only_moves(value: ir.Value, plan: Plan) -> bool:
    node = value.producer()
    if node is None or not moves(node, plan.spec.quantize_outputs):
        return False
    sources = [node.inputs[index] for index in moved_inputs(node)]
    return all(source in plan.uses and plan.group(source) is plan.group(value) for source in sources if source)


def _observer(values: list[ir.Value], method: str) -> Observer:
    """Some tensors keep their whole range, whatever the method.

    What the app passes is bounded by its preprocessing. Of probabilities the few large ones carry the result, and clipped
    ones no longer sum to 1.
    """
    makers = [value.producer() for value in values]
    bounded = any(maker is None or maker.op_type == "Softmax" for maker in makers)
    return find_observer("minmax" if bounded else method)()
