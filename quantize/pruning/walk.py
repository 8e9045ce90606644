"""Going through a network layer by layer, with what each layer reads once the ones before it are pruned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.layers import Layer
from edgewise.quantize.pruning.biases import added_to
from edgewise.quantize.pruning.moments import Moments
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.progress import Progress

if TYPE_CHECKING:
    from edgewise.runtime.data import Dataset

Array = NDArray[np.float32]
Visit = Callable[[Layer, Moments], None]


def walk(
    model: ir.Model,
    dense: ir.Model | None,
    layers: Sequence[Layer],
    data: Dataset,
    visit: Visit,
    *,
    task: str,
    progress: Progress,
) -> None:
    """Show each layer, in the order of the graph, to ``visit``, which may change its weights.

    The network runs over the data once for all layers that read the same tensor, only as far as that tensor, and each
    sample is reduced at once: memory does not grow with the number of samples.

    Args:
        model: the network that changes.
        dense: the same network as it was; None where ``visit`` leaves the model as it is.
        layers: of ``model``.
        data: calibration samples.
        visit: called with a layer and the moments of what it reads.
        task: what ``progress`` is told.
        progress: told how far it is.

    Raises:
        QuantizeError: NaN or infinity in the data or in what a layer reads.
    """
    stages = _by_input(layers)
    for number, (value, readers) in enumerate(stages.items()):
        moments = [Moments(layer) for layer in readers]
        others = {} if dense is None or not number else _shortcuts(readers)
        for now, before in activations(model, dense if number else None, [value, *others.values()], data):
            for layer, entry in zip(readers, moments, strict=True):
                entry.update(now[0], before[0])
                if layer.node in others:
                    place = 1 + list(others).index(layer.node)
                    entry.lose(now[0], before[place] - now[place])
        for layer, entry in zip(readers, moments, strict=True):
            visit(layer, entry)
        progress(task, number + 1, len(stages))


def _shortcuts(layers: Sequence[Layer]) -> dict[ir.Node, str]:
    """Per layer the tensor that its outputs are added to, where there is one."""
    return {layer.node: str(other.name) for layer in layers if (other := added_to(layer)) is not None}


def activations(
    model: ir.Model, dense: ir.Model | None, values: Sequence[str], data: Dataset
) -> Iterator[tuple[list[Array], list[Array]]]:
    """Tensors of the network and of the dense one (the same arrays when ``dense`` is None), sample by sample."""
    wanted = list(dict.fromkeys(values))
    runners = [OnnxRunner(until(each, wanted), outputs=wanted) for each in (model, dense) if each is not None]
    for number, sample in enumerate(data, start=1):
        where = f"calibration sample {number} of {data.source}"
        for name, array in sample.inputs.items():
            _require_finite(array, f"{where}, input {name!r}")
        found = [[made[value] for value in values] for made in (runner.run(sample.inputs) for runner in runners)]
        for arrays in found:
            for value, array in zip(values, arrays, strict=True):
                _require_finite(array, f"tensor {value!r} on {where}")
        yield found[0], found[-1]


def until(model: ir.Model, values: Sequence[str]) -> ir.Model:
    """A copy of the network that computes these tensors and nothing behind them."""
    copy = model.clone()
    made = {str(value.name): value for node in copy.graph for value in node.outputs}
    made |= {str(value.name): value for value in copy.graph.inputs}
    copy.graph.outputs[:] = [made[name] for name in values]
    return RemoveUnusedNodesPass()(copy).model


def _by_input(layers: Sequence[Layer]) -> dict[str, list[Layer]]:
    found: dict[str, list[Layer]] = {}
    for layer in layers:
        value = layer.node.inputs[layer.activations[0]]
        if value is not None:
            found.setdefault(str(value.name), []).append(layer)
    return found


def _require_finite(array: NDArray[np.generic], where: str) -> None:
    if np.issubdtype(array.dtype, np.floating) and not np.all(np.isfinite(array)):
        raise QuantizeError(
            "cannot prune by what the layers read",
            where=where,
            found="NaN or infinity",
            expected="finite numbers",
            fix="Check the samples and their preprocessing, or the network",
        )
