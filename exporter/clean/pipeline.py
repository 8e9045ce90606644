"""The cleaning pipeline: explicit lists of passes, the middle one run until nothing changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes import common

from edgewise.exporter.clean import library
from edgewise.exporter.clean.base import GraphPass
from edgewise.exporter.clean.cast_pairs import MergeCasts
from edgewise.exporter.clean.contiguous import MakeContiguous
from edgewise.exporter.clean.fold_affine import FoldAffine
from edgewise.exporter.clean.names import NameByScope
from edgewise.exporter.clean.noop import RemoveNoOps
from edgewise.exporter.clean.plain_softmax import PlainSoftmax
from edgewise.exporter.clean.reshape import PlainReshape
from edgewise.exporter.clean.split_heads import SplitHeads
from edgewise.exporter.clean.unbind import SliceSqueezeToGather

_MAX_ROUNDS = 8


def opening_passes() -> list[ir.passes.PassBase]:
    """Once, at the beginning."""
    return [
        common.InlinePass(),
        common.RemoveInitializersFromInputsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    ]


def repeated_passes() -> list[ir.passes.PassBase]:
    """Again and again, until a whole round changes nothing: each opens chances for the others."""
    return [
        library.fold_constants(),
        library.rewrite_patterns(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        MergeCasts(),
        PlainReshape(),
        RemoveNoOps(),
        library.EliminateIdentities(),
        FoldAffine(),
        SliceSqueezeToGather(),
        SplitHeads(),
        PlainSoftmax(),
        common.DeduplicateInitializersPass(),  # small ones: shapes and indices, so that their users become equal
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
    ]


def closing_passes() -> list[ir.passes.PassBase]:
    """Once, at the end."""
    return [
        common.LiftSubgraphInitializersToMainGraphPass(),
        MakeContiguous(),
        common.DeduplicateHashedInitializersPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.RemoveUnusedOpsetsPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
        common.TopologicalSortPass(),
    ]


def clean(model: ir.Model) -> dict[str, int]:
    """Clean a model in place.

    Returns:
        For each pass that did something how much: our own passes count their changes, a library's the nodes and constants by which
        their number changed (at least 1).
    """
    counts: Counter[str] = Counter()
    names = [value.name for value in [*model.graph.inputs, *model.graph.outputs]]
    run_passes(model, opening_passes(), counts)
    repeated = repeated_passes()
    for _ in range(_MAX_ROUNDS):
        before = sum(counts.values())
        run_passes(model, repeated, counts)
        if sum(counts.values()) == before:
            break
    run_passes(model, closing_passes(), counts)
    # Where outputs are one and the same value, the passes leave one of the names and make others up.
    for value, name in zip([*model.graph.inputs, *model.graph.outputs], names, strict=True):
        value.name = name
    run_passes(model, [NameByScope()], counts)
    return dict(sorted(counts.items()))


def run_passes(model: ir.Model, passes: Sequence[ir.passes.PassBase], counts: Counter[str]) -> None:
    """Run passes in order and count what they change."""
    for step in passes:
        before = _size(model)
        result = step(model)
        changed = step.changed if isinstance(step, GraphPass) else abs(_size(model) - before) or int(result.modified)
        if changed:
            counts[type(step).__name__.removesuffix("Pass")] += changed


def _size(model: ir.Model) -> int:
    return sum(1 for _ in model.graph.all_nodes()) + len(model.graph.initializers)
