"""What the readers of units that go would weigh, so that the network is judged as it will be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.layers import constant_of
from edgewise.quantize.pruning.biases import bias_of
from edgewise.quantize.pruning.matrices import as_matrices, from_matrices, weight_value
from edgewise.quantize.shrinking.choosing import Reader
from edgewise.quantize.shrinking.groups import Indices

Constants = dict[ir.Value, NDArray[np.float32]]


def compensated(readers: Sequence[Sequence[Reader]], gone: Sequence[Sequence[int]]) -> Constants:
    """Weights and biases of readers, of their old shapes, with zeros for what is gone.

    What stays comes as near as it can to what the layer gave in the dense network, for the same inputs: least squares over the
    calibration samples, not in sequence as ``refit`` does once units are cut.

    Args:
        readers: per group its readers; none where they have no least squares.
        gone: per group which units go.
    """
    lost: dict[ir.Value, tuple[Reader, list[Indices]]] = {}
    for group, units in zip(readers, gone, strict=True):
        for reader in group:
            lost.setdefault(weight_value(reader.layer), (reader, []))[1].extend(reader.columns[unit] for unit in units)
    found: Constants = {}
    for reader, parts in lost.values():
        if parts:
            found |= _solved(reader, np.unique(np.concatenate(parts)))
    return found


def constants_of(readers: Sequence[Sequence[Reader]]) -> list[ir.Value]:
    """All that ``compensated`` may change."""
    layers = [reader.layer for group in readers for reader in group]
    biases = [bias_of(layer, len(as_matrices(layer, _array(weight_value(layer))))) for layer in layers]
    return [weight_value(layer) for layer in layers] + [bias for bias in biases if bias is not None]


def _solved(reader: Reader, lost: Indices) -> Constants:
    value, dense = weight_value(reader.layer), reader.weights
    kept = np.setdiff1d(np.arange(dense.shape[1]), lost)
    made = np.zeros_like(dense)
    made[:, kept] = np.linalg.solve(reader.hessian[np.ix_(kept, kept)], (dense @ reader.hessian[:, kept]).T).T
    array = _array(value)
    shape = as_matrices(reader.layer, array).shape
    found = {value: from_matrices(reader.layer, made.astype(np.float32).reshape(shape), array.shape)}
    bias = bias_of(reader.layer, shape[0])
    if bias is not None:
        old = _array(bias)
        found[bias] = (old.reshape(-1) + (dense - made) @ reader.mean).astype(np.float32).reshape(old.shape)
    return found


def _array(value: ir.Value) -> NDArray[np.float32]:
    return np.asarray(constant_of(value), np.float32)
