"""Rounding weights so that their errors cancel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Steps = NDArray[np.float64]


def round_weights(
    weights: NDArray[np.float32], scales: NDArray[np.float32], axis: int | None, bits: int = 8
) -> NDArray[np.int8]:
    """Round to integers so that the errors of each kernel, and of each output channel, sum to less than one step.

    Neighbouring inputs are alike, and after a ReLU all are positive: what is left of a channel's error is mostly its sum
    times their mean. So where the sum is large, the weights nearest to the middle of two integers are rounded the other
    way. Needs no data. After C. Guo et al., "SQuant: On-the-Fly Data-Free Quantization via Diagonal Hessian
    Approximation" (ICLR 2022). Zeros stay zeros, so a pruned pattern is kept.

    Args:
        weights: of any shape with the output channels along ``axis``; dims after the input channels are a kernel.
        scales: shape [output channels] or [].
        axis: of the output channels; None when there are none.
        bits: the integers lie within ±(2^(bits−1) − 1).

    Returns:
        int8, the shape of ``weights``.
    """
    rows = weights.reshape(1, -1) if axis is None else np.moveaxis(weights, axis, 0)
    steps = rows.astype(np.float64) / scales.astype(np.float64).reshape(-1, *[1] * (rows.ndim - 1))
    top = 2 ** (bits - 1) - 1
    integers = np.clip(np.rint(steps), -top, top)
    if rows.ndim > 2:
        kernel = int(np.prod(rows.shape[2:]))
        integers = _balance(steps.reshape(-1, kernel), integers.reshape(-1, kernel), top)
    integers = _balance(steps.reshape(len(rows), -1), integers.reshape(len(rows), -1), top).reshape(rows.shape)
    whole = integers.reshape(weights.shape) if axis is None else np.moveaxis(integers, 0, axis)
    return np.ascontiguousarray(whole, dtype=np.int8)


def _balance(steps: Steps, integers: Steps, top: int) -> Steps:
    """Move, in each row, as many integers by one as the sum of the errors says, those that cost least first."""
    errors = integers - steps
    sums = errors.sum(axis=1)
    signs, counts = np.sign(sums)[:, None], np.rint(np.abs(sums))[:, None]
    movable = (errors * signs > 0) & (steps != 0) & (np.abs(integers - signs) <= top)
    order = np.argsort(np.where(movable, -np.abs(errors), np.inf), axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(steps.shape[1])[None], axis=1)
    return np.asarray(integers - signs * (movable & (rank < counts)))
