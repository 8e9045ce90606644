"""Running a float graph over samples, one at a time, and showing its tensors to whoever watches them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.errors import QuantizeError
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.progress import Progress

if TYPE_CHECKING:
    from edgewise.runtime.data import Dataset

BUDGET = 256 << 20  # bytes of tensors looked at in one run: ONNX Runtime holds them all at once
_UNKNOWN = BUDGET // 16  # what a tensor of unknown shape is taken for

Arrays = dict[str, np.ndarray]
Watcher = Callable[[NDArray[np.float32]], None]


def watch(
    model: ir.Model,
    watchers: Mapping[ir.Value, Watcher],
    data: Dataset,
    *,
    task: str,
    progress: Progress,
    budget: int = BUDGET,
) -> int:
    """Give each value, computed for each sample, to its watcher; returns how many samples there were.

    Memory does not grow with the number of samples. Values that take more than ``budget`` bytes together are computed in
    several passes over the data, some in each.

    Raises:
        QuantizeError: NaN or infinity in the data or in a watched value.
        RunError: ONNX Runtime refuses the model, or the data does not fit its inputs.
    """
    if not watchers:
        return 0
    batches = _batches(watchers, model.graph, next(iter(data)).inputs, budget)
    used = 0
    for number, batch in enumerate(batches):
        runner = OnnxRunner(model, outputs=[str(value.name) for value in batch])
        for used, sample in enumerate(data, start=1):
            where = f"calibration sample {used} of {data.source}"
            _require_finite(sample.inputs, where)
            outputs = runner.run(sample.inputs)
            for value in batch:
                watchers[value](_finite(outputs[str(value.name)], f"tensor {value.name!r} on {where}"))
            progress(task, number * len(data) + used, len(data) * len(batches))
    return used


def _batches(values: Iterable[ir.Value], graph: ir.Graph, sample: Arrays, budget: int) -> list[list[ir.Value]]:
    """The values in their order, packed so that each batch stays within the budget."""
    dims = _known_dims(graph, sample)
    batches: list[list[ir.Value]] = []
    room = 0
    for value in values:
        size = _bytes_of(value, dims)
        if not batches or size > room:
            batches.append([])
            room = budget
        batches[-1].append(value)
        room -= size
    return batches


def _known_dims(graph: ir.Graph, sample: Arrays) -> dict[str, int]:
    """What the symbolic dims of the inputs are in a sample."""
    known = {}
    for value in graph.inputs:
        sizes = sample[str(value.name)].shape if value.name in sample else ()
        named = zip(value.shape or (), sizes, strict=False)
        known.update({str(dim): size for dim, size in named if not isinstance(dim, int)})
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


def _finite(values: NDArray[np.float32], where: str) -> NDArray[np.float32]:
    if not np.all(np.isfinite(values)):
        raise QuantizeError(
            "the float network computes NaN or infinity",
            where=where,
            found=f"{int(np.sum(~np.isfinite(values)))} of {values.size} values",
            expected="finite numbers",
            fix="Check the network and its data, or keep that layer in float",
        )
    return values
