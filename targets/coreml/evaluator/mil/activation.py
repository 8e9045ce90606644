"""Activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgewise.targets.coreml.evaluator.mil.elementwise import erf


def _sigmoid(x: Any, **_: Any) -> Any:
    """Without overflow on either side."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def _silu(x: Any, **_: Any) -> Any:
    return x * _sigmoid(x)


def _relu(x: Any, **_: Any) -> Any:
    return np.maximum(x, 0)


def _relu6(x: Any, **_: Any) -> Any:
    return np.clip(x, 0, 6)


def _clip(x: Any, alpha: Any, beta: Any, **_: Any) -> Any:
    return np.minimum(np.maximum(x, alpha), beta)


def _leaky_relu(x: Any, alpha: Any, **_: Any) -> Any:
    return np.where(x >= 0, x, alpha * x)


def _prelu(x: Any, alpha: Any, **_: Any) -> Any:
    slope = np.asarray(alpha).reshape(1, -1, *(1,) * (x.ndim - 2))
    return np.where(x >= 0, x, slope * x)


def _elu(x: Any, alpha: Any, **_: Any) -> Any:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _thresholded_relu(x: Any, alpha: Any = 1.0, **_: Any) -> Any:
    return np.where(x >= alpha, x, 0)


def _clamped_relu(x: Any, alpha: Any, beta: Any, **_: Any) -> Any:
    return np.minimum(beta, np.where(x >= 0, x, alpha * x))


def _scaled_tanh(x: Any, alpha: Any = 1.0, beta: Any = 1.0, **_: Any) -> Any:
    return alpha * np.tanh(beta * x)


def _linear_activation(x: Any, alpha: Any, beta: Any = 0.0, **_: Any) -> Any:
    return alpha * x + beta


def _softplus(x: Any, **_: Any) -> Any:
    return np.logaddexp(x, np.float32(0))


def _softsign(x: Any, **_: Any) -> Any:
    return x / (1 + np.abs(x))


def _sigmoid_hard(x: Any, alpha: Any, beta: Any, **_: Any) -> Any:
    return np.clip(alpha * x + beta, 0, 1)


def _gelu(x: Any, mode: str = "EXACT", **_: Any) -> Any:
    if mode == "EXACT":
        return 0.5 * x * (1 + erf(x / np.sqrt(2)))
    if mode == "TANH_APPROXIMATION":
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return x * _sigmoid(1.702 * x)


def softmax(x: Any, axis: Any = -1, **_: Any) -> Any:
    """The largest is taken off first; a row of -inf alone gives NaN, as it does on the device."""
    powers = np.exp(x - x.max(axis=int(axis), keepdims=True))
    return powers / powers.sum(axis=int(axis), keepdims=True)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "sigmoid": _sigmoid,
    "silu": _silu,
    "relu": _relu,
    "relu6": _relu6,
    "clip": _clip,
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "elu": _elu,
    "thresholded_relu": _thresholded_relu,
    "clamped_relu": _clamped_relu,
    "scaled_tanh": _scaled_tanh,
    "linear_activation": _linear_activation,
    "softplus": _softplus,
    "softsign": _softsign,
    "sigmoid_hard": _sigmoid_hard,
    "gelu": _gelu,
    "softmax": softmax,
}
