"""Pruning of a graph's weights."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.layers import Layer, attribute, constant_of
from edgewise.quantize.passes.prepare import prepare
from edgewise.quantize.pruning.biases import bias_of, shift_bias
from edgewise.quantize.pruning.channels import remove_channels
from edgewise.quantize.pruning.columns import columns_refusal
from edgewise.quantize.pruning.criteria import DATA_FREE, Criterion, Task, find_criterion
from edgewise.quantize.pruning.matrices import (
    as_matrices,
    from_matrices,
    refusal_of,
    weight_value,
    weighted_layers,
)
from edgewise.quantize.pruning.moments import Moments
from edgewise.quantize.pruning.patterns import Pattern, parse_pattern
from edgewise.quantize.pruning.walk import walk
from edgewise.quantize.rewritten import Rewritten
from edgewise.runtime.progress import Progress, silent

if TYPE_CHECKING:
    from edgewise.runtime.data import Dataset

CHANNEL = "channel"
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
            consecutive inputs; ``channel``, whole output channels, so that tensors shrink.
        sparsity: the fraction of each layer's weights (of its channels for ``channel``) to remove, 0 to below 1.
        skip: names of layers to leave alone.
        criterion: ``magnitude``; ``wanda``; ``second_order`` (see ``criteria.py``). The last two need data.
        data: calibration samples; labels are not looked at.
        samples: how many of them to use, spread evenly.
        progress: told how far it is.

    Returns:
        The new model; the report has ``pattern``, ``criterion``, ``asked``, ``sparsity`` (reached, over all weights of
        layers), ``layers`` (``name, op, weight, density``) and ``refused`` (``node, op, reason``).

    Raises:
        QuantizeError: an unknown pattern or criterion, a sparsity that the pattern does not have, an unknown layer in
            ``skip``, no data or random or unusable data, or no layer left.
    """
    judge = find_criterion(criterion)
    chosen = None if pattern == CHANNEL else parse_pattern(pattern, sparsity)
    calibration = _calibration(criterion, pattern, data, samples)
    model = prepare(model)
    graph = model.graph
    _check_names(graph, skip)
    before = _count(graph)
    refused: list[dict[str, str]] = []
    if chosen is None:
        parse_pattern("unstructured", sparsity)  # the same limits hold
        done = remove_channels(graph, sparsity, skip, refused)
    else:
        work = _Work(model, chosen, sparsity, judge, refused)
        done = work.run(_select(graph, chosen, skip, calibration is not None, refused), calibration, progress)
    if not done:
        raise _nothing_to_prune(graph, pattern, refused)
    left = _count(graph)
    report = {
        "pattern": pattern,
        "criterion": criterion,
        "asked": sparsity,
        "sparsity": 1 - left / before if before else 0.0,
        "layers": done,
        "refused": refused,
    }
    return Rewritten(model, report | ({"samples": len(calibration)} if calibration is not None else {}))


@dataclass
class _Work:
    """Pruning the chosen layers of one model, in place."""

    model: ir.Model
    pattern: Pattern
    sparsity: float
    judge: Criterion
    refused: list[dict[str, str]]
    done: list[dict[str, Any]] = field(default_factory=list)

    def run(self, layers: list[Layer], data: Dataset | None, progress: Progress) -> list[dict[str, Any]]:
        if data is not None:
            walk(self.model, self.model.clone(), layers, data, self._prune, progress=progress)
            return self.done
        for number, layer in enumerate(layers):
            self._prune(layer, None)
            progress("prune", number + 1, len(layers))
        return self.done

    def _prune(self, layer: Layer, moments: Moments | None) -> None:
        if moments is not None and (reason := moments.refusal()):
            self.refused.append(_refusal(layer, reason))
            return
        value = weight_value(layer)
        array = np.asarray(constant_of(value), np.float32)
        matrices = as_matrices(layer, array)
        bias = bias_of(layer, len(matrices))
        outcome = self.judge(Task(matrices, self.pattern, self.sparsity, moments, bias is not None))
        value.const_value = ir.tensor(from_matrices(layer, outcome.weights, array.shape), name=value.name)
        if bias is not None and outcome.bias_shift is not None:
            shift_bias(bias, outcome.bias_shift)
        self.done.append(_entry(layer, value))


def _select(
    graph: ir.Graph, pattern: Pattern, skip: Sequence[str], with_data: bool, refused: list[dict[str, str]]
) -> list[Layer]:
    """The layers to prune, one for each tensor of weights."""
    chosen: dict[ir.Value, Layer] = {}
    for layer in weighted_layers(graph):
        value = weight_value(layer)
        if value in chosen:
            continue
        reason = "asked for" if layer.node.name in skip else refusal_of(layer, graph)
        reason = reason or _misfit(layer, pattern) or (_data_refusal(layer) if with_data else "")
        if reason:
            refused.append(_refusal(layer, reason))
        else:
            chosen[value] = layer
    return list(chosen.values())


def _misfit(layer: Layer, pattern: Pattern) -> str:
    array = np.asarray(constant_of(weight_value(layer)), np.float32)
    if not np.any(array):
        return "its weights are all zero"
    made, positions, read = as_matrices(layer, array).shape
    return pattern.refusal((made // attribute(layer.node, "group", 1), positions, read))


def _data_refusal(layer: Layer) -> str:
    if len(list(weight_value(layer).uses())) > 1:
        return "several layers share its weights, and each would have to change them in its own way"
    return columns_refusal(layer)


def _refusal(layer: Layer, reason: str) -> dict[str, str]:
    return {"node": str(layer.node.name), "op": layer.node.op_type, "reason": reason}


def _calibration(criterion: str, pattern: str, data: Dataset | None, samples: int) -> Dataset | None:
    """The samples that a criterion needs; None when it needs none."""
    if criterion in DATA_FREE:
        return None
    if pattern == CHANNEL:
        raise _no_use(f"criterion {criterion} with the pattern channel", "magnitude", "Leave the criterion out")
    if samples < 1:
        raise _no_use(f"{samples} samples", "at least 1", "A few hundred real samples are enough")
    if data is None:
        raise _no_use("no calibration data", "samples that look like real inputs", "Pass --calib DATA")
    if data.random:
        raise _no_use("random numbers", "samples that look like real inputs", "Pass real samples (--calib DATA)")
    return data.take(samples)


def _no_use(found: str, expected: str, fix: str) -> QuantizeError:
    return QuantizeError(
        "cannot prune by what the layers read", where="calibration", found=found, expected=expected, fix=fix
    )


def _nothing_to_prune(graph: ir.Graph, pattern: str, refused: list[dict[str, str]]) -> QuantizeError:
    return QuantizeError(
        "nothing to prune",
        where=f"pattern {pattern}, graph {graph.name!r}",
        found=f"{refused[0]['node']}: {refused[0]['reason']}" if refused else "no layer with constant weights",
        expected="at least one layer that can have the pattern",
        fix="Choose another pattern, or leave this stage out",
    )


def _entry(layer: Layer, value: ir.Value) -> dict[str, Any]:
    array = np.asarray(constant_of(value))
    density = np.count_nonzero(array) / max(array.size, 1)
    return {"name": layer.node.name, "op": layer.node.op_type, "weight": value.name, "density": density}


def _count(graph: ir.Graph) -> int:
    """Weights of layers that are not zero."""
    values = {weight_value(layer) for layer in weighted_layers(graph)}
    return sum(int(np.count_nonzero(np.asarray(constant_of(value)))) for value in values)


def _check_names(graph: ir.Graph, skip: Sequence[str]) -> None:
    known = [str(node.name) for node in graph]
    for name in skip:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)
            raise QuantizeError(
                "cannot leave a layer alone",
                where=f"skip {name!r}",
                found="no node of that name",
                expected=f"a node of the graph, such as {near[0]!r}" if near else "a node of the graph",
                fix="List the names with `edgewise inspect`",
            )
