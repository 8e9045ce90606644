"""Pruning of a graph's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.layers import Layer, constant_of
from edgewise.quantize.passes.prepare import prepare
from edgewise.quantize.pruning.criteria import DATA_FREE, find_criterion
from edgewise.quantize.pruning.densities import LEARNED, MEASURED, RULES, SENSITIVITY, check_densities
from edgewise.quantize.pruning.latency import LatencyTable
from edgewise.quantize.pruning.matrices import weight_value, weighted_layers
from edgewise.quantize.pruning.patterns import parse_pattern
from edgewise.quantize.pruning.pruner import Load, Pruner, item_of, size_of
from edgewise.quantize.pruning.reconstruct import Reconstruction
from edgewise.quantize.pruning.selection import check_names, select
from edgewise.quantize.pruning.tables import check_tables, prune_tables, table_values
from edgewise.quantize.rewritten import Rewritten
from edgewise.quantize.shrinking.adapt import Budget
from edgewise.quantize.shrinking.structures import check_structure, find_structure
from edgewise.quantize.walking import kept_count
from edgewise.runtime.progress import Progress, silent

if TYPE_CHECKING:
    from edgewise.runtime.data import Dataset

SAMPLES = 512


def prune(
    model: ir.Model,
    *,
    pattern: str,
    sparsity: float,
    skip: Sequence[str] = (),
    criterion: str = "magnitude",
    data: Dataset | None = None,
    samples: int = SAMPLES,
    densities: str = "uniform",
    costs: str | Path | None = None,
    reconstruct: bool = False,
    tables: bool = False,
    multiple: int = 1,
    progress: Progress = silent,
) -> Rewritten:
    """Remove weights of each layer in a pattern.

    Before::

        Conv(w)  w = [ 9 1 8 2 ]

    After, with ``2:4`` and ``magnitude``; with ``second_order`` the weights that stay change as well::

        Conv(w)  w = [ 9 0 8 0 ]

    Left alone, with the reason in the report: the layer that reads the network's input, depthwise convolutions, weights
    whose dims the pattern does not divide, weights that are not constant float32, weights that are all zero; with a
    criterion that needs data also weights that several layers share, and layers that the samples are too few for.

    Args:
        model: a float32 network; not changed.
        pattern: ``unstructured``; ``block:RxC``, R consecutive inputs by C consecutive outputs; ``N:M``, at most N of M
            consecutive inputs; ``channel``, ``width``, ``head``, ``low-rank`` and ``slice``, so that tensors shrink
            (``shrinking/structures.py``).
        sparsity: the fraction of each layer's weights (of its units where tensors shrink) to remove, 0 to below 1.
        skip: names of layers to leave alone.
        criterion: ``magnitude``; ``wanda``; ``second_order`` (see ``criteria.py``). The last two need data.
        data: calibration samples; labels are not looked at.
        samples: how many of them to use, spread evenly; fewer where what layers read takes more than 8 GiB on the disk
            (``WALK_BUDGET``).
        densities: how the sparsity is shared out over the layers: ``uniform``; ``erk`` and ``global`` (see
            ``densities.py``); ``sensitivity``, which needs data and measures each layer (see ``sensitivity.py``);
            ``learned``, where tensors shrink: thresholds that follow the outputs (see ``shrinking/learn.py``).
        costs: a JSON table of what each layer takes at a density (see ``latency.py``). With these two the layers
            together then take as long as with uniform densities, rather than have as many weights.
        reconstruct: then train what stays on the same samples, towards the dense network's tensors (``reconstruct.py``).
        tables: embeddings lose that fraction of each row as well, by magnitude; with ``unstructured``.
        multiple: where tensors shrink, as many channels (widths, heads) stay as are a multiple of it, such as a vector's lanes.
        progress: told how far it is.

    Returns:
        The new model; the report has ``pattern``, ``criterion``, ``asked``, ``sparsity`` (reached, over all weights of
        layers), ``layers`` (``name, op, weight, density``) and ``refused`` (``node, op, reason``); where data is needed
        ``samples``, how many were used.

    Raises:
        QuantizeError: an unknown pattern or criterion, a sparsity that the pattern does not have, an unknown layer in
            ``skip``, no data or random or unusable data, or no layer left.
    """
    asked = _Asked(pattern, sparsity, tuple(skip), criterion, densities, costs, reconstruct, tables, multiple)
    asked.check()
    calibration = _calibration(asked, data, samples)
    model = prepare(model)
    graph = model.graph
    check_names(graph, skip)
    if calibration is not None:
        calibration = calibration.take(kept_count(model, calibration, most=len(calibration)))
    before, dense = _count(graph, tables), model.clone()
    refused: list[dict[str, str]] = []
    structure = find_structure(pattern)
    if structure is not None:
        looks = calibration if asked.looks else None
        done = structure.remove(
            model, sparsity, skip, refused, data=looks, progress=progress, **_budget(asked, calibration)
        )
    else:
        done = _prune_layers(model, asked, calibration, refused, progress)
    if tables:
        done = done + prune_tables(graph, sparsity, skip)
    if not done:
        raise _nothing_to_prune(graph, pattern, refused)
    rows = []
    if reconstruct and calibration is not None:
        rows = Reconstruction(model, dense, calibration, progress).run()
    left = _count(graph, tables)
    report = {
        "pattern": pattern,
        "criterion": criterion,
        "densities": densities,
        "asked": sparsity,
        "sparsity": 1 - left / before if before else 0.0,
        "layers": done,
        "refused": refused,
        "reconstructed": rows,
    }
    return Rewritten(model, report | ({"samples": len(calibration)} if calibration is not None else {}))


@dataclass(frozen=True)
class _Asked:
    """The request of one call."""

    pattern: str
    sparsity: float
    skip: tuple[str, ...]
    criterion: str
    densities: str
    costs: str | Path | None
    reconstruct: bool
    tables: bool
    multiple: int

    @property
    def looks(self) -> bool:
        """Whether the criterion looks at what layers read."""
        return self.criterion not in DATA_FREE

    def check(self) -> None:
        """Raise QuantizeError for what cannot be."""
        find_criterion(self.criterion)
        if self.tables:
            check_tables(self.pattern)
        structure = find_structure(self.pattern)
        pattern = parse_pattern("unstructured" if structure else self.pattern, self.sparsity)
        check_densities(self.densities, pattern, shrinks=structure is not None)
        if structure is not None:
            check_structure(structure, self.criterion, self.densities, self.reconstruct, self.multiple)
        if self.multiple < 1 or (self.multiple > 1 and structure is None):
            found = f"multiple {self.multiple} with pattern {self.pattern}"
            raise _no_use(found, "1 or more, with channel, width or head", "Leave it out")
        if self.costs is not None and self.densities not in MEASURED:
            raise _no_use(f"a table of costs with densities {self.densities}", " or ".join(MEASURED), "Ask for one")


def _prune_layers(
    model: ir.Model, asked: _Asked, data: Dataset | None, refused: list[dict[str, str]], progress: Progress
) -> list[dict[str, Any]]:
    pattern = parse_pattern(asked.pattern, asked.sparsity)
    layers = select(model.graph, pattern, asked.skip, asked.looks, refused)
    pruner = Pruner(model, pattern, find_criterion(asked.criterion), asked.looks, refused)
    if layers:
        pruner.run(layers, _shares(pruner, layers, asked, data, progress), data, progress)
    return pruner.done


def _shares(
    pruner: Pruner, layers: list[Layer], asked: _Asked, data: Dataset | None, progress: Progress
) -> Mapping[str, float]:
    """What to remove from each layer, by the name of its weights."""
    if asked.densities == SENSITIVITY and data is not None:
        return pruner.sensitivity(layers, asked.sparsity, data, _load(asked), progress)
    items = [item_of(layer) for layer in layers]
    shares = RULES[asked.densities](items, pruner.pattern, asked.sparsity)
    return {item.name: share for item, share in zip(items, shares, strict=True)}


def _budget(asked: _Asked, data: Dataset | None) -> dict[str, Any]:
    """What a structure is told where its groups may differ, and of what is to stay."""
    told: dict[str, Any] = {"multiple": asked.multiple} if asked.multiple > 1 else {}
    if asked.densities not in MEASURED or data is None:
        return told
    return told | {"budget": Budget(_load(asked), data, asked.densities == LEARNED, asked.multiple)}


def _load(asked: _Asked) -> Load:
    return size_of if asked.costs is None else LatencyTable(asked.costs).cost


def _calibration(asked: _Asked, data: Dataset | None, samples: int) -> Dataset | None:
    """The samples that are needed; None when none are."""
    if not asked.looks and asked.densities not in MEASURED and not asked.reconstruct:
        return None
    if samples < 1:
        raise _no_use(f"{samples} samples", "at least 1", "A few hundred real samples are enough")
    if data is None:
        raise _no_use("no calibration data", "samples that look like real inputs", "Pass --calib DATA")
    if data.random:
        raise _no_use("random numbers", "samples that look like real inputs", "Pass real samples (--calib DATA)")
    return data.take(samples)


def _no_use(found: str, expected: str, fix: str) -> QuantizeError:
    return QuantizeError("cannot prune as asked", where="prune", found=found, expected=expected, fix=fix)


def _nothing_to_prune(graph: ir.Graph, pattern: str, refused: list[dict[str, str]]) -> QuantizeError:
    return QuantizeError(
        "nothing to prune",
        where=f"pattern {pattern}, graph {graph.name!r}",
        found=f"{refused[0]['node']}: {refused[0]['reason']}" if refused else "no layer with constant weights",
        expected="at least one layer that can have the pattern",
        fix="Choose another pattern, or leave this stage out",
    )


def _count(graph: ir.Graph, tables: bool) -> int:
    """Weights of layers (and of tables) that are not zero."""
    values = {weight_value(layer) for layer in weighted_layers(graph)} | set(table_values(graph) if tables else ())
    return sum(int(np.count_nonzero(np.asarray(constant_of(value)))) for value in values)
