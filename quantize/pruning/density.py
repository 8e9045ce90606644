"""What zeros a graph's weights hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.layers import Layer, constant_of
from edgewise.quantize.pruning.matrices import as_matrices, weight_value, weighted_layers

# The largest blocks first: zeros in 4x4 blocks are zeros in 4x1 blocks too.
_BLOCKS = ((16, 1), (8, 8), (4, 4), (4, 2), (4, 1), (1, 4))
# The sparsest first, of equals the shortest: 2:4 holds 4:8 too.
_GROUPS = ((1, 16), (1, 8), (2, 16), (1, 4), (2, 8), (4, 16), (2, 4), (4, 8), (8, 16))
_LEAST = 0.05  # below this share of zeros there is no pattern to speak of


def sparsity_of(model: ir.Model) -> list[dict[str, Any]]:
    """Density and pattern of each layer's weights, quantized ones included, in the order of the graph.

    Returns:
        ``name, op, weight, size, bits`` (of the type that weights are stored in), ``bytes`` (without scales), ``density`` and
        ``pattern``: the most structured one that the zeros have, as ``edgewise.prune`` writes it; None for dense weights.
    """
    found: dict[str, dict[str, Any]] = {}
    for layer in weighted_layers(dequantized(model).graph):
        value = weight_value(layer)
        array = np.asarray(constant_of(value))
        if str(value.name) not in found and array.size:
            found[str(value.name)] = {
                "name": layer.node.name,
                "op": layer.node.op_type,
                "weight": value.name,
                "size": int(array.size),
                "bits": value.const_value.dtype.bitwidth if value.const_value is not None else 0,
                "bytes": value.const_value.nbytes if value.const_value is not None else 0,
                "density": np.count_nonzero(array) / array.size,
                "pattern": _pattern(layer, array),
            }
    return list(found.values())


def dequantized(model: ir.Model) -> ir.Model:
    """A copy whose layers read the integers themselves where they read constant DequantizeLinear outputs.

    With symmetric weights an integer zero is a zero weight.
    """
    copy = model.clone()
    for node in list(copy.graph):
        stored = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        if stored is not None and constant_of(stored) is not None and _symmetric(node):
            node.outputs[0].replace_all_uses_with(stored)
    return copy


def _symmetric(node: ir.Node) -> bool:
    zero = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
    return not node.outputs[0].is_graph_output() and (zero is None or not np.any(zero))


def _pattern(layer: Layer, array: NDArray[np.generic]) -> str | None:
    zeros = 1 - np.count_nonzero(array) / array.size
    if zeros < _LEAST:
        return None
    if array.ndim < 2 or (layer.node.op_type in ("Gemm", "MatMul") and array.ndim != 2):
        return "unstructured"
    set_weights = as_matrices(layer, array.astype(bool).astype(np.float32)) != 0
    for inputs, outputs in _BLOCKS:
        if _in_blocks(set_weights, inputs, outputs):
            return f"block:{inputs}x{outputs}"
    for n, m in _GROUPS:
        if _in_groups(set_weights, n, m):
            return f"{n}:{m}"
    return "unstructured"


def _in_blocks(set_weights: NDArray[np.bool_], inputs: int, outputs: int) -> bool:
    made, positions, read = set_weights.shape
    if made % outputs or read % inputs:
        return False
    blocks = set_weights.reshape(made // outputs, outputs, positions, read // inputs, inputs)
    # A block may hold a weight that is zero by itself: what counts is that whole blocks of zeros explain the zeros.
    lone = np.any(blocks, axis=(1, 4), keepdims=True) & ~blocks
    return bool(np.count_nonzero(lone) <= 0.01 * np.count_nonzero(~set_weights))


def _in_groups(set_weights: NDArray[np.bool_], n: int, m: int) -> bool:
    if set_weights.shape[2] % m:
        return False
    return bool(np.all(set_weights.reshape(-1, m).sum(axis=1) <= n))
