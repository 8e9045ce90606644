"""Removing channels, attention heads and hidden widths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from edgewise.quantize.layers import Layer
from edgewise.quantize.pruning.matrices import weight_value
from edgewise.quantize.pruning.selection import refusal
from edgewise.quantize.shrinking.adapt import Budget, Counts, adapt
from edgewise.quantize.shrinking.choosing import Reader, by_error, by_norm, removed_count
from edgewise.quantize.shrinking.cutting import cut
from edgewise.quantize.shrinking.groups import Group, Indices, Span, find_groups
from edgewise.quantize.shrinking.refit import Lost, input_axis, problems, readers_of, refit
from edgewise.runtime.extras import needs
from edgewise.runtime.progress import Progress, silent

if TYPE_CHECKING:
    from edgewise.runtime.data import Dataset


def remove_units(
    model: ir.Model,
    sparsity: float,
    skip: Sequence[str],
    refused: list[dict[str, str]],
    *,
    kind: str,
    data: Dataset | None = None,
    budget: Budget | None = None,
    multiple: int = 1,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Remove a share of the units of every group, in place, so that tensors shrink.

    Before::

        Conv[8 ← 3] ─┬─► Conv[8 ← 8] ─► Add ─► Relu ─► Conv[16 ← 8]
                     └──────────────────►┘

    After, half of the channels; those of the two convolutions that meet in the Add go together::

        Conv[4 ← 3] ─┬─► Conv[4 ← 4] ─► Add ─► Relu ─► Conv[16 ← 4]
                     └──────────────────►┘

    Before, ``head``::

        MatMul q, k, v [384 ← 128] ─► Reshape[4, 32] ─► attention ─► Reshape[128] ─► MatMul [128 ← 128]

    After, half of the heads (P. Michel et al., "Are Sixteen Heads Really Better than One?", NeurIPS 2019)::

        MatMul q, k, v [192 ← 128] ─► Reshape[2, 32] ─► attention ─► Reshape[64] ─► MatMul [128 ← 64]

    ``width`` is the hidden width of MLPs and of residual blocks: what no residual addition holds.

    Without data the units with the smallest norms go, and no weight changes. With data those go whose loss the readers can
    best make good for, and the readers' weights are then the least squares towards what they gave in the dense network;
    groups that a grouped convolution or a shared layer reads are judged by norm still.

    Args:
        model: prepared; changed in place.
        sparsity: the share of each group to remove.
        skip: names of layers that keep their outputs.
        refused: lines of the report are added here.
        kind: ``channel``, ``head`` or ``width``.
        data: calibration samples, for the choice within a group.
        budget: then ``sparsity`` is the share of what all layers take together, and groups differ (``adapt.py``, ``learn.py``).
        multiple: of what stays of each group, such as the lanes of a vector: more goes until it is, and groups that are no
            larger stay, with a line in ``refused``.
        progress: told how far it is.

    Returns:
        ``name, op, weight, density, by`` for every layer that makes fewer outputs.
    """
    groups = find_groups(model.graph, kind, skip, refused)
    read = [(group, readers_of(model.graph, group)) for group in groups]
    told = _problems(model, read, data, progress)
    if budget is None:
        counts = [removed_count(group, sparsity, multiple) for group in groups]
    else:
        counts = _shared_out(model, groups, told, sparsity, budget, progress)
    for group in groups:
        if len(group.units) <= multiple > 1:
            reason = f"it has {len(group.units)} of them, and a multiple of {multiple} is to stay"
            refused += [refusal(maker, reason) for maker in group.makers]
    amounts = {id(group): count for group, count in zip(groups, counts, strict=True)}
    chosen = {
        id(group): by_error(readers, amounts[id(group)])
        for group, readers in zip(groups, told, strict=True)
        if readers and amounts[id(group)]
    }
    read = [each for each in read if amounts[id(each[0])]]
    return _carry_out(model, model.clone(), read, chosen, amounts, data, progress)


def _problems(
    model: ir.Model, read: Sequence[tuple[Group, list[Layer]]], data: Dataset | None, progress: Progress
) -> list[list[Reader]]:
    """Per group its readers as least-squares problems; none without data, and where a reader has none."""
    solvable = [each for each in read if each[1]] if data is not None else []
    found = iter(problems(model, solvable, data, progress) if data is not None and solvable else [])
    return [next(found) if readers and data is not None else [] for _, readers in read]


def _shared_out(
    model: ir.Model,
    groups: Sequence[Group],
    readers: Sequence[Sequence[Reader]],
    sparsity: float,
    budget: Budget,
    progress: Progress,
) -> Counts:
    if not budget.learned:
        return adapt(model, groups, readers, sparsity, budget, progress)
    with needs("export"):
        from edgewise.quantize.shrinking.learn import learn
    return learn(model, groups, sparsity, budget, progress)


def _carry_out(
    model: ir.Model,
    dense: ir.Model,
    read: Sequence[tuple[Group, list[Layer]]],
    chosen: dict[int, list[int]],
    amounts: dict[int, int],
    data: Dataset | None,
    progress: Progress,
) -> list[dict[str, Any]]:
    solved: dict[ir.Node, Layer] = {}
    rows, units = [], []
    for group, readers in read:
        gone = chosen.get(id(group))
        by = "norm" if gone is None else "error"
        if gone is None:
            gone = np.argsort(by_norm(group), kind="stable")[: amounts[id(group)]].tolist()
        units += [group.units[unit] for unit in gone]
        solved.update({layer.node: layer for layer in readers if by == "error"})
        rows += [_row(maker, 1 - len(gone) / len(group.units), by) for maker in group.makers]
    lost = {
        node: Lost(*(_entries(layer, units, inputs=side) for side in (True, False))) for node, layer in solved.items()
    }
    cut(model.graph, units)
    if data is not None and lost:
        order = {node: place for place, node in enumerate(model.graph)}
        refit(model, dense, {node: lost[node] for node in sorted(lost, key=order.__getitem__)}, data, progress)
    return rows


def _entries(layer: Layer, units: Sequence[dict[Span, Indices]], *, inputs: bool) -> Indices:
    """Which inputs or outputs of a layer go with the units."""
    value = weight_value(layer)
    axis = input_axis(layer) if inputs else layer.channel_axis or 0
    found = [unit[value, axis] for unit in units if (value, axis) in unit]
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.intp)


def _row(maker: Layer, density: float, by: str) -> dict[str, Any]:
    name = weight_value(maker).name
    return {"name": maker.node.name, "op": maker.node.op_type, "weight": name, "density": density, "by": by}
