"""A narrower residual stream: turned to its principal axes, and cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.layers import Layer, constant_of
from edgewise.quantize.pruning.biases import bias_of
from edgewise.quantize.pruning.matrices import weight_value
from edgewise.quantize.pruning.selection import refusal
from edgewise.quantize.shrinking.stream import NotAStream, Position, find_stream
from edgewise.quantize.streaming import watch
from edgewise.runtime.progress import Progress, silent

if TYPE_CHECKING:
    from edgewise.runtime.data import Dataset

_LEAST = 8  # widths are multiples of it where they reach it: what engines compute in one step

Matrix = NDArray[np.float64]


def slice_stream(
    model: ir.Model,
    sparsity: float,
    skip: Sequence[str],
    refused: list[dict[str, str]],
    *,
    data: Dataset | None = None,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Turn the residual stream of a pre-norm transformer to its principal axes and drop the last ones, in place.

    Before, D wide::

        x ─┬─► LayerNorm ─► MatMul[F ← D] ─► … ─► MatMul[D ← F] ─► Add ─► LayerNorm ─► …
           └──────────────────────────────────────────────────────►┘

    After, d wide; RMS is a normalisation without mean, scale and shift, which have gone into the layers beside it::

        x ─► MatMul Q₀[d ← D] ─┬─► RMS ─► MatMul[F ← d] ─► … ─► MatMul[d ← F] ─► Add ─► RMS ─► …
                               └─► MatMul Q₀ᵀQ₁[d ← d] ──────────────────────────►┘

    A rotation passes through RMS, so at full width nothing changes but rounding; Q are the principal axes of what each
    normalisation gives on the samples (S. Ashkboos et al., "SliceGPT", ICLR 2024). Networks that normalise behind the
    addition (BERT), and streams that anything else reads, are refused.

    Args:
        model: prepared; changed in place.
        sparsity: the share of the width to drop.
        skip: must not name a layer of the stream.
        refused: lines of the report are added here.
        data: calibration samples.
        progress: told how far it is.

    Returns:
        ``name, op, weight, density, width`` per layer that reads or writes the stream.
    """
    try:
        positions = find_stream(model.graph)
    except NotAStream as reason:
        norm = next((node for node in model.graph if node.op_type == "LayerNormalization"), next(iter(model.graph)))
        refused.append({"node": str(norm.name), "op": norm.op_type, "reason": str(reason)})
        return []
    layers = [layer for position in positions for layer in (*position.readers, position.writer) if layer is not None]
    if asked := [layer for layer in layers if layer.node.name in skip]:
        refused.append(refusal(asked[0], "asked for, and the stream has one width for all of its layers"))
        return []
    if data is None:
        raise ValueError("slicing needs calibration data")
    turns = _axes(model, positions, data, progress)
    whole = len(turns[0])
    width = _width(whole, sparsity)
    _write(positions, [turn[:, :width] for turn in turns])
    names = {layer.node: str(weight_value(layer).name) for layer in layers}
    return [
        {"name": n.name, "op": n.op_type, "weight": weight, "density": width / whole, "width": width}
        for n, weight in names.items()
    ]


def _width(whole: int, sparsity: float) -> int:
    width = max(1, whole - round(sparsity * whole))
    return width if width == whole or width < _LEAST else width - width % _LEAST


def _axes(model: ir.Model, positions: Sequence[Position], data: Dataset, progress: Progress) -> list[Matrix]:
    """Per position the principal axes, largest first, of the normalised signal without scale and shift: [D, D]."""
    sums: list[Matrix] = [np.zeros(()) for _ in positions]

    def watcher(index: int) -> Callable[[NDArray[np.float32]], None]:
        def see(array: NDArray[np.float32]) -> None:
            rows = array.reshape(-1, array.shape[-1])
            rows = rows - rows.mean(axis=1, keepdims=True)
            rows = rows / np.sqrt(np.mean(np.square(rows), axis=1, keepdims=True) + _epsilon(positions[index].norm))
            sums[index] = sums[index] + (rows.T @ rows).astype(np.float64)

        return see

    watchers = {position.value: watcher(index) for index, position in enumerate(positions)}
    watch(model, watchers, data, task="find principal axes", progress=progress)
    return [np.linalg.eigh(total)[1][:, ::-1] for total in sums]


def _write(positions: Sequence[Position], turns: Sequence[Matrix]) -> None:
    whole = len(turns[0])
    centre = np.eye(whole) - 1 / whole
    first = positions[0].value
    later = list(first.uses())
    streams = [_product(first, centre @ turns[0], "turned", before=positions[0].norm)]
    for use in later:
        use.node.replace_input_with(use.idx, streams[0])
    for (now, then), (turn, following) in zip(pairwise(positions), pairwise(turns), strict=True):
        _fold_writer(now, centre @ following)
        add = now.add
        if add is None:
            raise ValueError(now.value.name)
        index = 0 if add.inputs[0] is streams[-1] else 1
        add.replace_input_with(index, _product(streams[-1], turn.T @ following, "turned", before=add))
        _narrow(add.outputs[0], following.shape[1])
        streams.append(then.value)
    for position, turn, stream in zip(positions, turns, streams, strict=True):
        for layer in position.readers:
            _fold_reader(layer, position.norm, turn)
        _place_rms(position.norm, stream, whole)


def _fold_reader(layer: Layer, norm: ir.Node, turn: Matrix) -> None:
    """W ← √(D/d) · Qᵀ · diag(scale) · W, and the shift goes into the bias."""
    value = weight_value(layer)
    array = np.asarray(constant_of(value), np.float64)
    inputs_first = array if layer.channel_axis == 1 else array.T
    scale = np.asarray(constant_of(norm.inputs[1]), np.float64)
    bias = bias_of(layer, inputs_first.shape[1])
    if len(norm.inputs) > 2 and norm.inputs[2] is not None and bias is not None:
        shift = np.asarray(constant_of(norm.inputs[2]), np.float64) @ inputs_first
        _store(bias, (np.asarray(constant_of(bias), np.float64).reshape(-1) + shift).reshape(_shape(bias)))
    width = turn.shape[1]
    made = np.sqrt(len(turn) / width) * turn.T @ (scale[:, None] * inputs_first)
    _store(value, made if layer.channel_axis == 1 else made.T)


def _fold_writer(position: Position, turn: Matrix) -> None:
    if position.writer is None or position.bias is None:
        raise ValueError(position.value.name)
    value, bias = weight_value(position.writer), position.bias
    array = np.asarray(constant_of(value), np.float64)
    made = (array if position.writer.channel_axis == 1 else array.T) @ turn
    _store(value, made if position.writer.channel_axis == 1 else made.T)
    _store(bias, np.asarray(constant_of(bias), np.float64).reshape(-1) @ turn)
    for made_value in (position.writer.node.outputs[0], *(use.node.outputs[0] for use in bias.uses())):
        _narrow(made_value, turn.shape[1])


def _place_rms(norm: ir.Node, stream: ir.Value, whole: int) -> None:
    """Give x / √(mean(x²) + ε·D/d) in the place of a LayerNormalization; √(D/d) went into the readers."""
    graph, old = norm.graph, norm.outputs[0]
    if graph is None or stream.shape is None:
        raise ValueError(norm.name)
    width = stream.shape[-1]
    if not isinstance(width, int):
        raise ValueError(stream.name)
    name = str(norm.name)
    epsilon = _constant(graph, f"{name}_epsilon", np.array(_epsilon(norm) * whole / width, np.float32))
    axes = _constant(graph, f"{name}_axes", np.array([-1], np.int64))
    square = ir.node("Mul", [stream, stream], name=f"{name}_square")
    mean = ir.node("ReduceMean", [square.outputs[0], axes], {"keepdims": 1}, name=f"{name}_mean")
    safe = ir.node("Add", [mean.outputs[0], epsilon], name=f"{name}_safe")
    root = ir.node("Sqrt", [safe.outputs[0]], name=f"{name}_root")
    last = ir.node("Div", [stream, root.outputs[0]], name=name)
    for node in (square, mean, safe, root, last):
        graph.insert_before(norm, node)
        dims = list(stream.shape) if node in (square, last) else [*list(stream.shape)[:-1], 1]
        made = node.outputs[0]
        made.name, made.type, made.shape = f"{node.name}_out", old.type, ir.Shape(dims)
    old.replace_all_uses_with(last.outputs[0])
    graph.remove(norm, safe=True)
    _narrow_behind(last.outputs[0], width)


def _narrow_behind(value: ir.Value, width: int) -> None:
    """Tokens that were picked from the normalised stream are as wide as it is."""
    for use in value.uses():
        if use.node.op_type == "Gather":
            _narrow(use.node.outputs[0], width)
            _narrow_behind(use.node.outputs[0], width)


def _product(value: ir.Value, matrix: Matrix, what: str, *, before: ir.Node) -> ir.Value:
    graph = before.graph
    if graph is None:
        raise ValueError(before.name)
    name = f"{value.name}_{what}"
    node = ir.node("MatMul", [value, _constant(graph, f"{name}_by", matrix.astype(np.float32))], name=name)
    made = node.outputs[0]
    made.name, made.type = f"{name}_out", value.type
    if value.shape is not None:
        made.shape = ir.Shape([*list(value.shape)[:-1], matrix.shape[1]])
    graph.insert_before(before, node)
    return made


def _constant(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def _store(value: ir.Value, array: Matrix) -> None:
    value.const_value = ir.tensor(np.ascontiguousarray(array.astype(np.float32)), name=value.name)
    value.shape = ir.Shape(array.shape)


def _narrow(value: ir.Value, width: int) -> None:
    if value.shape is not None:
        value.shape = ir.Shape([*list(value.shape)[:-1], width])


def _shape(value: ir.Value) -> tuple[int, ...]:
    return np.asarray(constant_of(value)).shape


def _epsilon(norm: ir.Node) -> float:
    found = norm.attributes.get("epsilon")
    return 1e-5 if found is None else found.as_float()
