"""Weights of few values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.layers import Layer, attribute, constant_of
from edgewise.quantize.palettes import learn_table, nearest
from edgewise.quantize.passes.quantize_tables import tables_of
from edgewise.quantize.passes.settle_palettes import SettlePalettes
from edgewise.quantize.plan import Plan
from edgewise.quantize.pruning.matrices import as_matrices, from_matrices
from edgewise.quantize.report import describe_plan
from edgewise.quantize.rewritten import Rewritten
from edgewise.quantize.streaming import watch
from edgewise.quantize.walking import kept_samples
from edgewise.runtime.progress import Progress, silent

if TYPE_CHECKING:
    from edgewise.runtime.data import Dataset

_MANY_ZEROS = 0.1  # from this share on they were put there, and stay


class Palettize(ir.passes.InPlacePass):
    """Replace the weights of each layer by the nearest entries of a small table.

    Before::

        w: f32[O,I,3,3], any values ──► Conv

    After::

        w: f32[O,I,3,3], 2^bits values per tensor (or per group of output channels) ──► Conv

    The graph keeps plain float weights: a target that has palettes (Core ML) finds the tables again and stores indices.
    Tables come from k-means (S. Han et al., "Deep Compression", ICLR 2016) in which an error counts as much as the mean
    square of the input that it is multiplied by. Zeros that pruning left stay zeros. Vectors are runs of output channels.
    """

    def __init__(self, plan: Plan, data: Dataset, progress: Progress = silent) -> None:
        self._plan, self._data, self._progress = plan, data, progress
        self.made: list[dict[str, Any]] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the weights of every layer of the plan; those that several layers share once."""
        powers = self._input_powers(model)
        done: set[ir.Value] = set()
        for layer in self._plan.layers.values():
            value = layer.node.inputs[layer.weight or 0]
            if value is None or value in done or layer.weight is None:
                continue
            done.add(value)
            weight = np.asarray(constant_of(value), dtype=np.float32)
            new = self._rewritten(layer, weight, powers[layer.node.name or ""])
            value.const_value = ir.tensor(new, name=value.name)
            self.made.append(_row(layer, weight, new))
        for node in tables_of(model.graph) if self._plan.spec.tables else ():
            value = node.inputs[0]
            if value is not None and value not in done:
                done.add(value)
                self._palettize_table(node, value)
        return ir.passes.PassResult(model, modified=bool(self.made))

    def _palettize_table(self, node: ir.Node, value: ir.Value) -> None:
        """Embeddings: one table of scalars, every weight as important."""
        table = np.asarray(constant_of(value), dtype=np.float32)
        rows = table.astype(np.float64)
        new = _tabled(rows, np.ones_like(rows), 2**self._plan.spec.palette_bits, 1)
        value.const_value = ir.tensor(new, name=value.name)
        self.made.append({"layer": str(node.name), "weight_error": _lost(table, new)})

    def _input_powers(self, model: ir.Model) -> dict[str, NDArray[np.float64]]:
        """Per layer the mean square of each of its input channels over all samples."""
        sums: dict[str, list[NDArray[np.float64]]] = {str(layer.node.name): [] for layer in self._plan.layers.values()}
        readers: dict[ir.Value, list[Layer]] = {}
        for layer in self._plan.layers.values():
            value = layer.node.inputs[layer.activations[0]]
            if value is not None:
                readers.setdefault(value, []).append(layer)

        def watcher(layers: list[Layer]) -> Any:
            def see(array: NDArray[np.float32]) -> None:
                for layer in layers:
                    sums[str(layer.node.name)].append(_powers(layer, array))

            return see

        watch(
            model, {value: watcher(layers) for value, layers in readers.items()}, self._data,
            task="measure inputs", progress=self._progress,
        )  # fmt: skip
        return {name: np.mean(parts, axis=0) for name, parts in sums.items()}

    def _rewritten(self, layer: Layer, weight: NDArray[np.float32], powers: NDArray[np.float64]) -> NDArray[np.float32]:
        spec = self._plan.spec
        if weight.ndim != 2 and layer.node.op_type in ("Gemm", "MatMul"):  # a stack of matrices: no channels of its own
            flat = weight.reshape(1, -1).astype(np.float64)
            return _tabled(flat, np.ones_like(flat), 2**spec.palette_bits, 1).reshape(weight.shape)
        matrices = as_matrices(layer, weight)
        rows = matrices.reshape(len(matrices), -1).astype(np.float64)
        vector = spec.palette_vector if len(rows) % spec.palette_vector == 0 else 1
        group = spec.palette_group * vector if spec.palette_group else len(rows)
        group = group if len(rows) % group == 0 else len(rows)
        importance = _importance(layer, powers, matrices.shape)
        parts = [
            _tabled(rows[at : at + group], importance[at : at + group], 2**spec.palette_bits, vector)
            for at in range(0, len(rows), group)
        ]
        return np.ascontiguousarray(from_matrices(layer, np.concatenate(parts).reshape(matrices.shape), weight.shape))


def palettized(model: ir.Model, plan: Plan, data: Dataset, progress: Progress) -> Rewritten:
    """The prepared model with the layers of the plan palettized, and the report."""
    reference = model.clone()
    palettize = Palettize(plan, data, progress)
    made = palettize(model).model
    settle = SettlePalettes(reference, plan, kept_samples(reference, data), progress)
    made = settle(made).model
    report = describe_plan(made.graph, plan)
    names, spec = {str(node.name) for node in plan.layers}, plan.spec
    granularity = f"per-group-{spec.palette_group}" if spec.palette_group else "per-tensor"
    for row in report["layers"]:
        if row["name"] in names:
            row |= {"precision": f"palette{spec.palette_bits}", "weight_dtype": "palette", "granularity": granularity}
            row["weight_bits"] = spec.palette_bits / spec.palette_vector
    if data.random:
        report["notes"].append("calibrated on random data, as asked for: the importance of inputs means nothing")
    return Rewritten(
        made,
        report | {"palettes": palettize.made, "settled": settle.settled, "method": "k-means", "samples": len(data)},
    )


def _powers(layer: Layer, values: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean square per input channel."""
    node = layer.node
    if node.op_type in ("Conv", "ConvTranspose"):
        axis = 1
    else:
        left = layer.activations[0] == 1 or attribute(node, "transA", 0)
        axis = values.ndim - (2 if left and values.ndim > 1 else 1)
    others = tuple(other for other in range(values.ndim) if other != axis)
    return np.asarray(np.mean(np.square(values, dtype=np.float64), axis=others), dtype=np.float64)


def _importance(layer: Layer, powers: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Of each weight [output, position · input]: the mean square of what it is multiplied by."""
    outputs, positions, inputs = shape
    floor = max(float(np.mean(powers)), float(np.finfo(np.float32).tiny)) * 1e-4
    powers = np.maximum(powers, floor)
    groups = len(powers) // inputs if layer.node.op_type == "Conv" else 1
    if len(powers) != groups * inputs or outputs % groups:
        return np.ones((outputs, positions * inputs))
    rows = np.repeat(powers.reshape(groups, 1, inputs), positions, axis=1).reshape(groups, -1)
    return np.repeat(rows, outputs // groups, axis=0)


def _tabled(
    rows: NDArray[np.float64], importance: NDArray[np.float64], entries: int, vector: int
) -> NDArray[np.float32]:
    """Rows [outputs, columns] with one table; a vector is of one column and neighbouring outputs."""
    stacked = rows.reshape(-1, vector, rows.shape[1]).transpose(0, 2, 1)
    vectors = stacked.reshape(-1, vector)
    weight = importance.reshape(-1, vector, rows.shape[1]).mean(axis=1).reshape(-1)
    zero = ~vectors.any(axis=1)
    keep_zeros = float(np.mean(zero)) >= _MANY_ZEROS and entries > 1 and not zero.all()
    table = (
        learn_table(vectors[~zero], weight[~zero], entries - 1) if keep_zeros else learn_table(vectors, weight, entries)
    )
    # As float16 would round it: what Core ML computes in by default, and then the checks compare the same numbers.
    table = table.astype(np.float16).astype(np.float64) if np.abs(table).max() < 65504 else table
    found = table[nearest(vectors, table)]
    found[zero & keep_zeros] = 0
    return np.asarray(found.reshape(stacked.shape).transpose(0, 2, 1).reshape(rows.shape), dtype=np.float32)


def _row(layer: Layer, before: NDArray[np.float32], after: NDArray[np.float32]) -> dict[str, Any]:
    """Of the report: the layer, and the error of its weights over their size."""
    return {"layer": str(layer.node.name), "weight_error": _lost(before, after)}


def _lost(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    size = max(float(np.linalg.norm(before)), float(np.finfo(np.float32).tiny))
    return round(float(np.linalg.norm(after - before)) / size, 4)
