"""Two thin layers in place of a wide one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.layers import Layer, attribute, constant_of
from edgewise.quantize.pruning.biases import bias_of, shift_bias
from edgewise.quantize.pruning.columns import columns_refusal
from edgewise.quantize.pruning.matrices import as_matrices, from_matrices, refusal_of, weight_value, weighted_layers
from edgewise.quantize.pruning.selection import refusal
from edgewise.quantize.pruning.sensitivity import Curve, Probe, share_out
from edgewise.quantize.shrinking.factors import place_factors
from edgewise.quantize.shrinking.refit import gather
from edgewise.runtime.progress import Progress, silent

if TYPE_CHECKING:
    from edgewise.runtime.data import Dataset

_SHARES = (0.9, 0.75, 0.6, 0.45, 0.3, 0.15)  # of the weights of a layer, what factors may hold
_LEAST = 8  # ranks are multiples of it where they reach it: what engines compute in one step

Matrix = NDArray[np.float64]


@dataclass
class _Candidate:
    """A layer as W ≈ left · right; ``right`` reads what the layer reads.

    Attributes:
        root: H = root · rootᵀ, the second moments of what it reads (the identity without data), float64 [columns, columns].
        means: of its inputs; None without data, or without a bias that may shift.
    """

    layer: Layer
    dense: Matrix
    root: Matrix
    means: NDArray[np.float64] | None

    def __post_init__(self) -> None:
        self._left, self._values, right = np.linalg.svd(self.dense @ self.root, full_matrices=False)
        self._right = np.linalg.solve(self.root.T, right.T).T

    @property
    def weights(self) -> int:
        """How many weights the layer has."""
        return int(self.dense.size)

    def rank(self, share: float) -> int:
        """The largest rank whose factors hold at most this share of the weights."""
        rank = int(share * self.weights / sum(self.dense.shape))
        return max(1, rank - rank % _LEAST if rank >= _LEAST else rank)

    def share(self, rank: int) -> float:
        """What factors of a rank hold of the layer's weights."""
        return rank * sum(self.dense.shape) / self.weights

    def factors(self, rank: int) -> tuple[Matrix, Matrix]:
        """Left [outputs, rank] and right [rank, columns], least squares on what the layer reads."""
        return self._left[:, :rank] * self._values[:rank], self._right[:rank]

    def lost(self, rank: int) -> float:
        """The squared error of the layer's outputs over their squares."""
        squares = np.square(self._values)
        return float(squares[rank:].sum() / max(float(squares.sum()), 1e-30))


def factorise(
    model: ir.Model,
    sparsity: float,
    skip: Sequence[str],
    refused: list[dict[str, str]],
    *,
    data: Dataset | None = None,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Replace layers with two thin ones, in place, with ranks that are measured.

    Before::

        x [N, 384] ─► MatMul [384, 1536] ─► y

    After::

        x [N, 384] ─► MatMul [384, 128] ─► MatMul [128, 1536] ─► y

    A convolution becomes one with fewer outputs and a 1x1 convolution behind it (X. Zhang et al., "Accelerating Very Deep
    Convolutional Networks", 2016). Factors are the singular vectors of W on what the layer reads, so that its outputs, not
    its weights, come out nearest. The ranks are those that cost the network's outputs least for the weights they take off,
    each layer tried alone at six of them (after Y. Guo et al., "PELA", CVPR 2024, which trains afterwards: see
    ``reconstruct``); without data the energy of the singular values judges. A layer for which no rank saves enough stays.

    Args:
        model: prepared; changed in place.
        sparsity: the share of the weights of all these layers to take off.
        skip: names of layers to leave alone.
        refused: lines of the report are added here.
        data: calibration samples.
        progress: told how far it is.

    Returns:
        ``name, op, weight, density, rank`` per layer that was replaced.
    """
    candidates = _candidates(model, skip, refused, data, progress)
    probe = Probe(model, data) if data is not None else None
    curves = []
    for number, candidate in enumerate(candidates, start=1):
        curves.append(_curve(candidate, probe))
        progress("measure ranks", number, len(candidates))
    shares = share_out(curves, sum(candidate.weights for candidate in candidates) * (1 - sparsity))
    rows = []
    for candidate, share in zip(candidates, shares, strict=True):
        rank = candidate.rank(1 - share)
        if share <= 0 or candidate.share(rank) >= 1:
            refused.append(
                refusal(candidate.layer, "no rank of it saves as much for what it costs as those of other layers")
            )
            continue
        rows.append(_place(candidate, rank))
    return rows


def _candidates(
    model: ir.Model, skip: Sequence[str], refused: list[dict[str, str]], data: Dataset | None, progress: Progress
) -> list[_Candidate]:
    layers = []
    for layer in weighted_layers(model.graph):
        if reason := _refusal(layer, model.graph, skip):
            refused.append(refusal(layer, reason))
        else:
            layers.append(layer)
    if data is None:
        return [_Candidate(layer, _dense(layer), np.eye(_dense(layer).shape[1]), None) for layer in layers]
    found = []
    for layer, moments in gather(model, layers, data, progress).items():
        if reason := moments.refusal():
            refused.append(refusal(layer, reason))
            continue
        dense = _dense(layer)
        biased = bias_of(layer, len(dense)) is not None
        hessian, _ = moments.problem(0, dense, biased)
        found.append(
            _Candidate(
                layer, dense, np.asarray(np.linalg.cholesky(hessian), np.float64), moments.mean[0] if biased else None
            )
        )
    return found


def _refusal(layer: Layer, graph: ir.Graph, skip: Sequence[str]) -> str:
    if layer.node.name in skip:
        return "asked for"
    if reason := refusal_of(layer, graph) or columns_refusal(layer):
        return reason
    if attribute(layer.node, "group", 1) > 1 or attribute(layer.node, "transA", 0):
        return "it is a grouped convolution, or its input is transposed"
    return "several nodes read its weights" if len(list(weight_value(layer).uses())) > 1 else ""


def _dense(layer: Layer) -> Matrix:
    matrices = as_matrices(layer, np.asarray(constant_of(weight_value(layer)), np.float32))
    return matrices.astype(np.float64).reshape(len(matrices), -1)


def _curve(candidate: _Candidate, probe: Probe | None) -> Curve:
    """Errors at several ranks, and how many weights are left."""
    curve = Curve([0.0], [0.0], [float(candidate.weights)])
    value = weight_value(candidate.layer)
    kept, shape = value.const_value, np.asarray(constant_of(value)).shape
    matrices = as_matrices(candidate.layer, np.asarray(constant_of(value), np.float32)).shape
    for rank in sorted({candidate.rank(share) for share in _SHARES}, reverse=True):
        if candidate.share(rank) >= 1:
            continue
        error = candidate.lost(rank)
        if probe is not None:
            left, right = candidate.factors(rank)
            made = from_matrices(candidate.layer, (left @ right).astype(np.float32).reshape(matrices), shape)
            value.const_value = ir.tensor(np.ascontiguousarray(made), name=value.name)
            error = probe.error()
            value.const_value = kept
        curve.sparsities.append(1 - candidate.share(rank))
        curve.errors.append(error)
        curve.loads.append(candidate.share(rank) * candidate.weights)
    return curve


def _place(candidate: _Candidate, rank: int) -> dict[str, Any]:
    layer, name = candidate.layer, weight_value(candidate.layer).name
    left, right = candidate.factors(rank)
    bias = bias_of(layer, len(left))
    if bias is not None and candidate.means is not None:
        shift_bias(bias, (candidate.dense - left @ right) @ candidate.means)
    place_factors(layer, left.astype(np.float32), right.astype(np.float32))
    return {
        "name": layer.node.name,
        "op": layer.node.op_type,
        "weight": name,
        "density": candidate.share(rank),
        "rank": rank,
    }
