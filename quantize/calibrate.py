"""Running the float graph over calibration data, sample by sample, to learn the range of each tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.grid import Grid
from edgewise.quantize.movement import moved_inputs, moves
from edgewise.quantize.observers import Observer, find_observer
from edgewise.quantize.plan import Plan
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.progress import Progress
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgewise.runtime.data import Dataset

_BUDGET = 256 << 20  # bytes of tensors looked at in one run: ONNX Runtime holds them all at once
_UNKNOWN = _BUDGET // 16  # what a tensor of unknown shape is taken for

Arrays = dict[str, np.ndarray]


def calibrate(
    model: ir.Model, plan: Plan, data: Dataset, *, method: str, samples: int, progress: Progress, budget: int = _BUDGET
) -> int:
    """Find the scale of every group of the plan; returns how many samples were used.

    Memory does not grow with the number of samples: each tensor is reduced to an observer as soon as it is computed.
    Networks whose tensors take more than ``budget`` bytes together are run several times, some tensors each time.

    Raises:
        QuantizeError: NaN or infinity in the data or in a tensor computed from it.
        RunError: ONNX Runtime refuses the model or the data does not fit its inputs.
    """
    chosen = data.take(samples)
    groups = _taps(model.graph, plan)
    observers = {group: _observer(names, method) for group, names in groups.items()}
    batches = _batches(groups, model.graph, next(iter(chosen)).inputs, budget)
    used = 0
    for batch, names in enumerate(batches):
        runner = OnnxRunner(model, outputs=list(names))
        for used, sample in enumerate(chosen, start=1):
            where = f"calibration sample {used} of {data.source}"
            _require_finite(sample.inputs, where)
            _observe(runner.run(sample.inputs), names, observers, where)
            progress("calibrate", batch * len(chosen) + used, len(chosen) * len(batches))
    grid = Grid(plan.spec.activation_dtype, plan.spec.activation_symmetric)
    for group, observer in observers.items():
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


def _batches(
    groups: dict[ir.Value, list[ir.Value]], graph: ir.Graph, sample: Arrays, budget: int
) -> list[dict[str, ir.Value]]:
    """Tensor names with their group, packed in the order of the graph so that each batch stays within the budget."""
    dims = _known_dims(graph, sample)
    batches: list[dict[str, ir.Value]] = []
    room = 0
    for group, values in groups.items():
        for value in values:
            size = _bytes_of(value, dims)
            if size > room:
                batches.append({})
                room = budget
            batches[-1][str(value.name)] = group
            room -= size
    return batches


def _known_dims(graph: ir.Graph, sample: Arrays) -> dict[str, int]:
    """What the symbolic dims of the inputs are in a sample."""
    known = {}
    for value in graph.inputs:
        shape = sample[str(value.name)].shape if value.name in sample else ()
        known.update(
            {str(dim): size for dim, size in zip(value.shape or (), shape, strict=False) if not isinstance(dim, int)}
        )
    return known


def _bytes_of(value: ir.Value, dims: dict[str, int]) -> int:
    if value.shape is None:
        return _UNKNOWN
    sizes = [dim if isinstance(dim, int) else dims.get(str(dim)) for dim in value.shape]
    return _UNKNOWN if None in sizes else 4 * int(np.prod([size or 0 for size in sizes], dtype=np.int64))


def _require_finite(inputs: Arrays, where: str) -> None:
    for name, array in inputs.items():
        if np.issubdtype(array.dtype, np.floating) and not np.all(np.isfinite(array)):
            raise QuantizeError(
                "calibration data is not finite",
                where=f"{where}, input {name!r}",
                found="NaN or infinity",
                expected="finite numbers",
                fix="Check the file and its preprocessing",
            )


def _observe(outputs: Arrays, names: dict[str, ir.Value], observers: dict[ir.Value, Observer], where: str) -> None:
    for name, group in names.items():
        values: NDArray[np.float32] = outputs[name]
        if not np.all(np.isfinite(values)):
            raise QuantizeError(
                "the float network computes NaN or infinity",
                where=f"tensor {name!r} on {where}",
                found=f"{int(np.sum(~np.isfinite(values)))} of {values.size} values",
                expected="finite numbers",
                fix="Check the network and its data, or keep that layer in float",
            )
        observers[group].update(values)
