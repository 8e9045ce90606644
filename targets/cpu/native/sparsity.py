"""Whether a layer's zeros lie in blocks that the kernels can leave out, and whether that pays."""

from __future__ import annotations

import numpy as np

# Time against dense at a density of 1, by the outputs of a block: measured on DeiT-S's layers (197 tokens, AVX-512 VNNI).
_COST = {4: 1.05, 2: 1.2, 1: 2.2}
_PAYS_BELOW = 0.9  # of the dense time; above, dense layers are as good and smaller


def sparse_block(weights: np.ndarray, group: int) -> tuple[int, int] | None:
    """The block (inputs, outputs) in which to pack weights [M, C / group, kernel...]; None for dense."""
    if group != 1 or weights.shape[0] < max(_COST):
        return None
    wide = 4 if weights.dtype == np.int8 else 1
    used = _used_entries(weights, wide)
    if used.mean() * min(_COST.values()) >= _PAYS_BELOW:
        return None
    costs = {outputs: _density(used, outputs) * cost for outputs, cost in _COST.items()}
    best = min(costs, key=lambda outputs: costs[outputs])
    return (wide, best) if costs[best] < _PAYS_BELOW else None


def _used_entries(weights: np.ndarray, wide: int) -> np.ndarray:
    """Which runs of ``wide`` inputs of each output are not all zero; bool [M, C / wide, positions]."""
    flat = weights.reshape(weights.shape[0], weights.shape[1], -1)
    padded = np.pad(flat, ((0, 0), (0, -flat.shape[1] % wide), (0, 0)))
    return np.asarray(padded.reshape(flat.shape[0], -1, wide, flat.shape[2]).any(axis=2))


def _density(used: np.ndarray, outputs: int) -> float:
    padded = np.pad(used, ((0, -used.shape[0] % outputs), (0, 0), (0, 0)))
    return float(padded.reshape(-1, outputs, *used.shape[1:]).any(axis=1).mean())
