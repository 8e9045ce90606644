"""Recurrence over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def _sigmoid(x: Any) -> Any:
    return 0.5 * (np.tanh(0.5 * x) + 1)


def _lstm(
    x: Any, initial_h: Any, initial_c: Any, weight_ih: Any, weight_hh: Any, bias: Any = None,
    direction: str = "forward", output_sequence: Any = False, **_: Any,
) -> Any:  # fmt: skip
    """Gates in the order input, forget, output, cell; sigmoid and tanh, which the converter leaves as they are by default."""
    if direction != "forward":
        raise ValueError(f"direction {direction}, which the converter never writes")
    h, c, steps = initial_h, initial_c, []
    for step in x:
        gates = step @ weight_ih.T + h @ weight_hh.T + (0 if bias is None else bias)
        first, forget, output, cell = np.split(gates, 4, axis=-1)
        c = _sigmoid(forget) * c + _sigmoid(first) * np.tanh(cell)
        h = _sigmoid(output) * np.tanh(c)
        steps.append(h)
    return [np.stack(steps if output_sequence else steps[-1:]), h, c]


def _reverse(x: Any, axes: Any = None, **_: Any) -> Any:
    return np.flip(x, None if axes is None else tuple(int(axis) for axis in np.ravel(axes)))


OPERATIONS: dict[str, Callable[..., Any]] = {"lstm": _lstm, "reverse": _reverse}
