"""2:4 sparsity: which weights have it, as TensorRT wants it, and what breaks it.

Of every four consecutive input channels (rows of a matrix product) at most two are not zero, at each output and position.
Source: NVIDIA TensorRT Developer Guide, "Structured sparsity".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgewise.quantize.layers import Layer, constant_of
from edgewise.quantize.pruning.density import dequantized
from edgewise.quantize.pruning.matrices import as_matrices, weight_value, weighted_layers
from edgewise.targets.errors import TargetError

_GROUP, _KEPT = 4, 2
_MEANT = 0.4  # with fewer zeros nobody meant 2:4


@dataclass(frozen=True)
class Masks:
    """Nodes whose weights are 2:4, and those that have as many zeros but break the pattern, with where they do."""

    kept: list[str]
    broken: dict[str, str]


def find_masks(model: ir.Model) -> Masks:
    """Look at every layer with weights; integers count as the weights that they stand for."""
    kept, broken = [], {}
    for layer in weighted_layers(dequantized(model).graph):
        array = np.asarray(constant_of(weight_value(layer)))
        if array.size == 0 or 1 - np.count_nonzero(array) / array.size < _MEANT:
            continue
        if problem := _problem(layer, array):
            broken[layer.node.name or ""] = problem
        else:
            kept.append(layer.node.name or "")
    return Masks(kept, broken)


def check_sparse(masks: Masks, asked: bool | None) -> tuple[bool, list[str]]:
    """Whether the builder may look for sparse kernels, and notes. Undecided (None): it may where there are 2:4 weights.

    Raises:
        TargetError: it was asked for, and no weights are 2:4.
    """
    notes = [f"Node {name!r} has zeros that are no 2:4 pattern: {problem}." for name, problem in masks.broken.items()]
    if asked and not masks.kept:
        raise TargetError(
            "sparse kernels were asked for, and no weights have the pattern",
            where="target tensorrt, build.options.sparse",
            found=notes[0].rstrip(".") if notes else "dense weights",
            expected="2:4: of four consecutive inputs at most two are not zero",
            fix="Prune first: edgewise prune --pattern 2:4, or leave the option out",
        )
    sparse = bool(masks.kept) if asked is None else asked
    if sparse:
        notes.append(f"2:4 sparse weights in {len(masks.kept)} layers; the builder's flag SPARSE_WEIGHTS is set.")
    return sparse, notes


def _problem(layer: Layer, array: np.ndarray) -> str:
    if layer.node.op_type in ("Gemm", "MatMul") and array.ndim != 2:
        return f"its weights have {array.ndim} dims"
    kept = as_matrices(layer, array.astype(bool).astype(np.float32)) != 0  # [output, position, input]
    if kept.shape[2] % _GROUP:
        return f"{kept.shape[2]} inputs are no multiple of {_GROUP}"
    groups = kept.reshape(*kept.shape[:2], -1, _GROUP).sum(axis=3)
    wrong = np.argwhere(groups > _KEPT)
    if not len(wrong):
        return ""
    output, position, group = map(int, wrong[0])
    first = group * _GROUP
    return (
        f"{len(wrong)} of {groups.size} groups have more than {_KEPT} weights, the first at output {output}, position "
        f"{position}, inputs {first} to {first + _GROUP - 1}"
    )
