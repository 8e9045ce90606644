"""Readers of what was removed make good for it: least squares towards what they gave before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.layers import Layer, attribute, constant_of
from edgewise.quantize.pruning.biases import bias_of, shift_bias
from edgewise.quantize.pruning.columns import columns_refusal
from edgewise.quantize.pruning.matrices import as_matrices, from_matrices, input_value, weight_value, weighted_layers
from edgewise.quantize.pruning.moments import Moments
from edgewise.quantize.pruning.walk import SideBySide
from edgewise.quantize.shrinking.choosing import Reader
from edgewise.quantize.shrinking.groups import Group, Indices
from edgewise.quantize.streaming import watch
from edgewise.runtime.progress import Progress

if TYPE_CHECKING:
    from edgewise.runtime.data import Dataset


def readers_of(graph: ir.Graph, group: Group) -> list[Layer]:
    """The layers that multiply what the units carry; empty when one of them has no least squares."""
    found = []
    for layer in weighted_layers(graph):
        if (weight_value(layer), input_axis(layer)) in group.units[0]:
            grouped = layer.node.op_type == "Conv" and attribute(layer.node, "group", 1) > 1
            if grouped or columns_refusal(layer) or len(list(weight_value(layer).uses())) > 1:
                return []
            found.append(layer)
    return found


def problems(
    model: ir.Model, groups: list[tuple[Group, list[Layer]]], data: Dataset, progress: Progress
) -> list[list[Reader]]:
    """For every group its readers, from one run over the data; memory does not grow with the samples."""
    layers = list({layer.node: layer for _, readers in groups for layer in readers}.values())
    moments = {layer.node: each for layer, each in gather(model, layers, data, progress).items()}
    return [[_reader(layer, group, moments[layer.node]) for layer in readers] for group, readers in groups]


def gather(model: ir.Model, layers: Sequence[Layer], data: Dataset, progress: Progress) -> dict[Layer, Moments]:
    """The moments of what layers of a network read, from one run over the data.

    Raises:
        QuantizeError: NaN or infinity in the data or in what a layer reads.
    """
    moments = {str(weight_value(layer).name): Moments(layer) for layer in layers}
    wanted = {str(weight_value(layer).name): input_value(layer) for layer in layers}
    readers: dict[ir.Value, list[Moments]] = {}
    for name, value in wanted.items():
        readers.setdefault(value, []).append(moments[name])

    def watcher(found: list[Moments]) -> Callable[[NDArray[np.float32]], None]:
        def see(array: NDArray[np.float32]) -> None:
            for each in found:
                each.update(array, array)

        return see

    task = "look at what layers read"
    watch(model, {value: watcher(found) for value, found in readers.items()}, data, task=task, progress=progress)
    return {layer: moments[str(weight_value(layer).name)] for layer in layers}


def _reader(layer: Layer, group: Group, moments: Moments) -> Reader:
    matrices = _weights(layer)
    dense = matrices.astype(np.float64).reshape(len(matrices), -1)
    hessian, _ = moments.problem(0, dense, bias_of(layer, len(matrices)) is not None)
    span = (weight_value(layer), input_axis(layer))
    columns = [_columns(matrices, unit[span]) for unit in group.units]
    return Reader(hessian, dense, columns, layer, moments.mean[0])


def _columns(matrices: NDArray[np.float32], inputs: Indices) -> Indices:
    """The columns of some inputs, at every kernel position."""
    _, positions, count = matrices.shape
    return np.asarray(np.arange(positions)[:, None] * count + inputs, np.intp).reshape(-1)


@dataclass(frozen=True)
class Lost:
    """What a layer lost: indices of inputs, and of outputs that went with another group."""

    inputs: Indices
    outputs: Indices


def refit(
    model: ir.Model, dense: ir.Model, removed: dict[ir.Node, Lost], data: Dataset, progress: Progress
) -> list[str]:
    """Solve the readers anew, in the order of the graph, in the network that was cut.

    Args:
        model: the network that was cut; changed in place.
        dense: as it was.
        removed: per reader of ``model``, in the order of the graph, what it lost.
        data: calibration samples; read once.
        progress: told how far it is.

    Returns:
        The names of the layers that were solved; a layer with fewer rows of data than weights per output is not.
    """
    before = {str(value.name): value for value in dense.graph.initializers.values()}
    both, done = SideBySide(model, dense, data), []
    for number, (node, lost) in enumerate(removed.items(), start=1):
        layer = next(each for each in weighted_layers(model.graph) if each.node is node)
        own = next(
            each for each in weighted_layers(dense.graph) if weight_value(each) is before[str(weight_value(layer).name)]
        )
        moments = Moments(layer)
        for now, then in both.tensors(input_value(layer)):
            moments.update(now[0], then[0])
        if not moments.refusal():
            _solve(layer, own, lost, moments)
            done.append(str(node.name))
        progress("refit", number, len(removed))
    return done


def _solve(layer: Layer, own: Layer, lost: Lost, moments: Moments) -> None:
    wide = _weights(own)
    dense = np.delete(wide.astype(np.float64).reshape(len(wide), -1), lost.outputs, axis=0)
    kept = np.setdiff1d(np.arange(dense.shape[1]), _columns(wide, lost.inputs))
    shape = as_matrices(layer, _array(layer)).shape
    bias = bias_of(layer, shape[0])
    hessian, target = moments.problem(0, dense, bias is not None, kept)
    solved = np.linalg.solve(hessian, target.T).T
    value = weight_value(layer)
    made = from_matrices(layer, solved.astype(np.float32).reshape(shape), _array(layer).shape)
    value.const_value = ir.tensor(np.ascontiguousarray(made), name=value.name)
    if bias is not None:
        shift_bias(bias, dense @ moments.dense_mean[0] - solved @ moments.mean[0])


def input_axis(layer: Layer) -> int:
    """The axis of a layer's weights along which its inputs run."""
    return 1 if layer.node.op_type == "Conv" else 1 - (layer.channel_axis or 0)


def _array(layer: Layer) -> NDArray[np.float32]:
    return np.asarray(constant_of(weight_value(layer)), np.float32)


def _weights(layer: Layer) -> NDArray[np.float32]:
    return as_matrices(layer, _array(layer))
