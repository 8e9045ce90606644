"""Learning the range of each tensor, and with it the scale of each group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from edgewise.quantize.movement import moved_inputs, moves
from edgewise.quantize.observers import Observer, find_observer
from edgewise.quantize.plan import Plan
from edgewise.quantize.streaming import BUDGET, watch
from edgewise.runtime.progress import Progress

if TYPE_CHECKING:
    from edgewise.runtime.data import Dataset


def calibrate(
    model: ir.Model, plan: Plan, data: Dataset, *, method: str, progress: Progress, budget: int = BUDGET
) -> int:
    """Find the scale of every group of the plan; returns how many samples were used.

    Each tensor is reduced to an observer as soon as it is computed, so memory does not grow with the number of samples.

    Raises:
        QuantizeError: NaN or infinity in the data or in a tensor computed from it.
        RunError: ONNX Runtime refuses the model or the data does not fit its inputs.
    """
    groups = _taps(model.graph, plan)
    observers = {group: _observer(values, method) for group, values in groups.items()}
    watchers = {value: observers[group].update for group, values in groups.items() for value in values}
    used = watch(model, watchers, data, task="calibrate", progress=progress, budget=budget)
    for group, observer in observers.items():
        grid = plan.grid(group)
        plan.scales[group] = grid.fit(*observer.range(grid))
    return used


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
