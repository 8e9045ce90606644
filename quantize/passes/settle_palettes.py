"""Indices into palettes chosen together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.layers import Layer, constant_of, describe
from edgewise.quantize.palettes import nearest
from edgewise.quantize.passes.round_by_gptq import input_of, solve_refusal
from edgewise.quantize.plan import Plan
from edgewise.quantize.pruning.matrices import as_matrices, from_matrices
from edgewise.quantize.pruning.moments import Moments
from edgewise.quantize.second_order import best_of, error_of
from edgewise.quantize.walking import Arrays, Walk
from edgewise.runtime.progress import Progress, silent

_Matrix = NDArray[np.float64]
_Problem = tuple[_Matrix, _Matrix]
_Tables = list[tuple[slice, _Matrix]]

_BLOCK = 128  # columns whose updates to the columns behind them are applied at once


class SettlePalettes(ir.passes.InPlacePass):
    """Take for each weight the entry of its table with which the layer's outputs, not its weights, come nearest.

    Before::

        x̂ ─► Conv(nearest entries)                    ‖ŵ·x̂ − w·x‖² large

    After::

        x̂ ─► Conv(entries of the same tables)         ‖ŵ·x̂ − w·x‖² smaller

    Column by column; what one loses is made good by those that are still free: GPTQ (E. Frantar et al., ICLR 2023) on tables in
    place of a grid, as GPTVQ does (M. van Baalen et al., 2024). Layer by layer in the order of the graph; x̂ is what the layer reads
    once the layers before it have their palettes. A layer stays as it was when the error on held-out samples does not fall.
    """

    def __init__(self, reference: ir.Model, plan: Plan, samples: Sequence[Arrays], progress: Progress = silent) -> None:
        self._reference, self._plan, self._samples, self._progress = reference, plan, samples, progress
        self.settled: list[dict[str, Any]] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Choose anew where it gains; ``settled`` tells which layers and how much."""
        names = {node.name for node in self._plan.layers}
        originals = {node.name: describe(node) for node in self._reference.graph if node.name in names}
        floats, now = Walk(self._reference, self._samples), Walk(model, self._samples)
        for number, layer in enumerate(self._plan.layers.values(), start=1):
            original = originals[layer.node.name]
            value = layer.node.inputs[layer.weight] if layer.weight is not None else None
            if value is not None and len(value.uses()) == 1 and not solve_refusal(original):
                every, unseen = self._gather(original, layer.node, floats, now)
                if unseen.rows and not every.refusal():
                    self._settle(original, layer, value, every, unseen)
            self._progress("choose entries of palettes", number, len(self._plan.layers))
        return ir.passes.PassResult(model, modified=bool(self.settled))

    def _gather(self, original: Layer, node: ir.Node, floats: Walk, now: Walk) -> tuple[Moments, Moments]:
        """Moments of all samples, and of every second one."""
        index = original.activations[0]
        values = floats.values([input_of(original.node, index)])[0], now.values([input_of(node, index)])[0]
        every, second = Moments(original), Moments(original)
        for number, (before, after) in enumerate(zip(*values, strict=True)):
            every.update(after, before)
            if number % 2:
                second.update(after, before)
        return every, second

    def _settle(self, original: Layer, layer: Layer, value: ir.Value, every: Moments, unseen: Moments) -> None:
        dense, old = (
            as_matrices(original, np.asarray(constant_of(source), dtype=np.float32))
            for source in (original.node.inputs[original.weight or 0], value)
        )
        rows, picked = (array.reshape(len(array), -1).astype(np.float64) for array in (dense, old))
        spec, parts = self._plan.spec, len(every.second)
        tables = _tables(picked, spec.palette_group * spec.palette_vector, spec.palette_vector)
        size = len(rows) // parts
        if any(cut.start // size != (cut.stop - 1) // size for cut, _ in tables) and parts > 1:
            return  # a table over several groups of a convolution: its vectors may lie in two of them
        found = np.concatenate(
            [
                _chosen(
                    every.problem(part, own, False), unseen.problem(part, own, False), now, _within(tables, part, size)
                )
                for part, (own, now) in enumerate(zip(np.split(rows, parts), np.split(picked, parts), strict=True))
            ]
        )
        if np.array_equal(found, picked):
            return
        shape = np.asarray(constant_of(value)).shape
        new = from_matrices(original, found.astype(np.float32).reshape(dense.shape), shape)
        value.const_value = ir.tensor(np.ascontiguousarray(new), name=value.name)
        self.settled.append({"layer": str(layer.node.name), "moved": round(float(np.mean(found != picked)), 4)})


def _tables(rows: _Matrix, group: int, vector: int) -> _Tables:
    """The entries that each group of outputs uses now."""
    group = group if group and len(rows) % group == 0 else len(rows)
    vector = vector if len(rows) % vector == 0 else 1
    cuts = (slice(at, at + group) for at in range(0, len(rows), group))
    return [(cut, np.unique(_stacked(rows[cut], vector).reshape(-1, vector), axis=0)) for cut in cuts]


def _stacked(rows: _Matrix, vector: int) -> _Matrix:
    return rows.reshape(-1, vector, rows.shape[1]).transpose(0, 2, 1)


def _within(tables: _Tables, part: int, size: int) -> _Tables:
    """The tables of one group of a convolution, rows counted from its first."""
    first = part * size
    inside = [(max(cut.start - first, 0), min(cut.stop - first, size), table) for cut, table in tables]
    return [(slice(start, stop), table) for start, stop, table in inside if start < stop]


def _chosen(every: _Problem, unseen: _Problem, old: _Matrix, tables: _Tables) -> _Matrix:
    """The better of what was and of what is chosen together, judged on held-out samples."""
    half = every[0] - unseen[0], every[1] - unseen[1]
    if error_of(*unseen, _together(*half, old, tables)) >= error_of(*unseen, old):
        return old
    return _together(*every, old, tables)


def _together(hessian: _Matrix, target: _Matrix, old: _Matrix, tables: _Tables) -> _Matrix:
    """Entries for which the output error is low; zeros stay zeros."""
    order = np.argsort(-np.diag(hessian), kind="stable")
    ordered = hessian[np.ix_(order, order)]
    weights, zeros = best_of(ordered, target[:, order]), _holes(old, tables)[:, order]
    upper = np.linalg.cholesky(np.linalg.inv(ordered)).T
    made = np.zeros_like(weights)
    for start, end in _blocks(weights.shape[1]):
        errors = np.zeros((len(weights), end - start))
        for column in range(start, end):
            made[:, column] = np.where(zeros[:, column], 0.0, _entries(weights[:, column], tables))
            left = weights[:, column] - made[:, column]
            errors[:, column - start] = left / upper[column, column]
            weights[:, column + 1 : end] -= np.outer(errors[:, column - start], upper[column, column + 1 : end])
        weights[:, end:] -= errors @ upper[start:end, end:]
    found = np.empty_like(made)
    found[:, order] = made
    return found


def _holes(rows: _Matrix, tables: _Tables) -> NDArray[np.bool_]:
    """Which weights are zero as a whole vector is."""
    holes = np.zeros(rows.shape, bool)
    for cut, table in tables:
        empty = ~rows[cut].reshape(-1, table.shape[1], rows.shape[1]).any(axis=1)
        holes[cut] = np.repeat(empty, table.shape[1], axis=0)
    return holes


def _blocks(columns: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + _BLOCK, columns)) for start in range(0, columns, _BLOCK))


def _entries(column: _Matrix, tables: _Tables) -> _Matrix:
    """The nearest entry for each output (or each run of outputs that share one)."""
    made = np.empty_like(column)
    for cut, table in tables:
        vectors = column[cut].reshape(-1, table.shape[1])
        made[cut] = table[nearest(vectors, table)].reshape(-1)
    return made
