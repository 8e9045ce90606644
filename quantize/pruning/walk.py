"""Going through a network layer by layer, with what each layer reads once the ones before it are pruned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.keeping import Samples
from edgewise.quantize.layers import Layer
from edgewise.quantize.pruning.biases import added_to
from edgewise.quantize.pruning.matrices import input_value
from edgewise.quantize.pruning.moments import Moments
from edgewise.quantize.walking import Arrays, Walk, reads
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

    All layers that read the same tensor are shown together, when the first of them is due. What makes a tensor lies before
    its first reader, and so do the readers of what that reads: their turn was before. So every node is computed with the
    weights that it will have, and once; memory does not grow with the number of samples.

    Args:
        model: the network that changes.
        dense: the same network as it was; None where ``visit`` leaves the model as it is.
        layers: of ``model``.
        data: calibration samples; read once.
        visit: called with a layer and the moments of what it reads.
        task: what ``progress`` is told.
        progress: told how far it is.

    Raises:
        QuantizeError: NaN or infinity in the data or in what a layer reads.
    """
    both = SideBySide(model, model if dense is None else dense, data)
    stages = _by_input(layers)
    waiting = {layer.node for layer in layers}
    for number, (value, readers) in enumerate(stages.items()):
        others = {} if dense is None else _shortcuts(readers, waiting)
        moments = [Moments(layer) for layer in readers]
        for now, before in both.tensors(value, others.values()):
            for layer, entry in zip(readers, moments, strict=True):
                entry.update(now[0], before[0])
                if layer.node in others:
                    place = 1 + list(others).index(layer.node)
                    entry.lose(now[0], before[place] - now[place])
        for layer, entry in zip(readers, moments, strict=True):
            visit(layer, entry)
        waiting.difference_update(layer.node for layer in readers)
        progress(task, number + 1, len(stages))


class SideBySide:
    """Two networks whose tensors bear the same names, walked through together: one that changes, and one as it was.

    Args:
        model: the network that changes.
        dense: the other; ``model`` itself where it does not change.
        data: calibration samples; read once.

    Raises:
        QuantizeError: NaN or infinity in the data.
    """

    def __init__(self, model: ir.Model, dense: ir.Model, data: Dataset) -> None:
        self._source = data.source
        samples = Samples(_finite(data))
        models = [model] if dense is model else [model, dense]
        self._walks = [(Walk(each, samples), _by_name(each.graph)) for each in models]

    def tensors(self, value: ir.Value, others: Iterable[ir.Value] = ()) -> Iterator[tuple[list[Array], list[Array]]]:
        """A tensor, and others that may come later, in both networks, sample by sample; the walks go on up to the first.

        Raises:
            QuantizeError: NaN or infinity in one of them.
        """
        names = [str(each.name) for each in (value, *others)]
        for going, known in self._walks:
            going.values([known[names[0]]])
        computed = [going.ahead([known[name] for name in names]) for going, known in self._walks]
        for number, made in enumerate(zip(*computed, strict=True), start=1):
            for name, array in [pair for arrays in made for pair in arrays.items()]:
                _require_finite(array, f"tensor {name!r} on calibration sample {number} of {self._source}")
            found = [[arrays[name] for name in names] for arrays in made]
            yield found[0], found[-1]


def _shortcuts(layers: Sequence[Layer], waiting: set[ir.Node]) -> dict[ir.Node, ir.Value]:
    """Per layer the tensor that its outputs are added to, where there is one that is as it will be.

    Where layers that are still to be pruned make it, they are the ones that make good, for they see what this one became.
    """
    found = {layer.node: other for layer in layers if (other := added_to(layer)) is not None}
    return {node: other for node, other in found.items() if waiting.isdisjoint(_makers(other))}


def _makers(value: ir.Value) -> set[ir.Node]:
    """All nodes that a tensor is computed with."""
    found: set[ir.Node] = set()
    open_values = [value]
    while open_values:
        node = open_values.pop().producer()
        if node is not None and node not in found:
            found.add(node)
            open_values.extend(reads(node))
    return found


def _by_input(layers: Sequence[Layer]) -> dict[ir.Value, list[Layer]]:
    found: dict[ir.Value, list[Layer]] = {}
    for layer in layers:
        found.setdefault(input_value(layer), []).append(layer)
    return found


def _by_name(graph: ir.Graph) -> dict[str, ir.Value]:
    made = [value for node in graph for value in node.outputs]
    return {str(value.name): value for value in (*graph.inputs, *made)}


def _finite(data: Dataset) -> Iterator[Arrays]:
    for number, sample in enumerate(data, start=1):
        for name, array in sample.inputs.items():
            _require_finite(array, f"calibration sample {number} of {data.source}, input {name!r}")
        yield sample.inputs


def _require_finite(array: NDArray[np.generic], where: str) -> None:
    if np.issubdtype(array.dtype, np.floating) and not np.all(np.isfinite(array)):
        raise QuantizeError(
            "cannot prune by what the layers read",
            where=where,
            found="NaN or infinity",
            expected="finite numbers",
            fix="Check the samples and their preprocessing, or the network",
        )
