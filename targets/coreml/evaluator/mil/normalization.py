"""Normalizations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def _channels(parameter: Any, rank: int) -> Any:
    return np.asarray(parameter).reshape(1, -1, *(1,) * (rank - 2))


def _batch_norm(x: Any, mean: Any, variance: Any, gamma: Any = 1, beta: Any = 0, epsilon: Any = 1e-5, **_: Any) -> Any:
    mean, variance, gamma, beta = (_channels(parameter, x.ndim) for parameter in (mean, variance, gamma, beta))
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta


def _standardized(x: Any, axes: Any, epsilon: Any) -> Any:
    mean = x.mean(axis=axes, keepdims=True)
    variance = np.square(x - mean).mean(axis=axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon)


def _instance_norm(x: Any, gamma: Any = 1, beta: Any = 0, epsilon: Any = 1e-5, **_: Any) -> Any:
    y = _standardized(x, tuple(range(2, x.ndim)), epsilon)
    return _channels(gamma, x.ndim) * y + _channels(beta, x.ndim)


def _layer_norm(x: Any, axes: Any = None, gamma: Any = None, beta: Any = None, epsilon: Any = 1e-5, **_: Any) -> Any:
    listed = tuple(int(axis) % x.ndim for axis in (range(x.ndim) if axes is None else axes))
    y = _standardized(x, listed, epsilon)
    shape = [x.shape[axis] if axis in listed else 1 for axis in range(x.ndim)]
    y = y if gamma is None else y * np.reshape(gamma, shape)
    return y if beta is None else y + np.reshape(beta, shape)


def _local_response_norm(x: Any, size: Any, alpha: Any = 1e-4, beta: Any = 0.75, k: Any = 1.0, **_: Any) -> Any:
    half, squares = int(size) // 2, np.square(x)
    total = np.zeros_like(x)
    for channel in range(x.shape[1]):
        total[:, channel] = squares[:, max(0, channel - half) : channel + half + 1].sum(axis=1)
    return x / (k + alpha / size * total) ** beta


OPERATIONS: dict[str, Callable[..., Any]] = {
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "local_response_norm": _local_response_norm,
}
