"""Learning for each weight of a layer whether to round it up or down."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

_ITERATIONS = 1000
_ROWS = 512  # of the layer's inputs, in each step
_RATE, _DECAYS, _TINY = 0.02, (0.9, 0.999), 1e-8  # Adam's
_WARM_UP = 0.2  # share of the iterations in which nothing pushes towards whole numbers
_STEEP = (20.0, 2.0)  # the exponent of that push, from the first to the last iteration
_LEAST = 1e-30  # of an error that is divided by
_STRETCH = 0.1  # how far the sigmoid goes beyond 0 and 1, so that it reaches them


@dataclass(frozen=True)
class LayerProblem:
    """A layer as products of rows, group by group of a convolution.

    Attributes:
        rows: what the layer reads, float32 [groups, rows, columns].
        wanted: what the float layer gives, after its activation, float32 [groups, rows, outputs].
        bias: float32 [groups, 1, outputs].
        limits: of the activation that follows: (0, inf) is a Relu.
    """

    rows: Array
    wanted: Array
    bias: Array
    limits: tuple[float, float]

    def error(self, weights: Array) -> float:
        """Mean squared error of the outputs under weights [groups, outputs, columns]."""
        return float(np.mean(np.square(self._given(self.rows, weights)[0] - self.wanted, dtype=np.float64)))

    def slope(self, weights: Array, chosen: NDArray[np.intp]) -> Array:
        """The gradient of the mean squared error over some rows."""
        rows = self.rows[:, chosen]
        given, passes = self._given(rows, weights)
        difference = (given - self.wanted[:, chosen]) * passes
        return np.asarray(difference.transpose(0, 2, 1) @ rows * (2 / difference.size))

    def _given(self, rows: Array, weights: Array) -> tuple[Array, NDArray[np.bool_]]:
        plain = rows @ weights.transpose(0, 2, 1) + self.bias
        low, high = self.limits
        return np.clip(plain, low, high), (plain > low) & (plain < high)


def learn_rounding(
    problem: LayerProblem, dense: Array, start: Array, steps: Array, top: int, *, seed: int = 0
) -> Array:
    """Integers near the dense weights that bring the layer's outputs, after its activation, nearest to what is wanted.

    Each weight is a soft mixture of two neighbouring integers, learned by gradient descent together with all others of
    the layer; a growing penalty pushes the mixtures to one of the two. What the activation cuts off costs nothing, which
    no closed form knows. After M. Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization" (ICML
    2020); the two integers are ``start`` and its neighbour on the dense weight's side.

    Args:
        problem: the layer and its data.
        dense: float weights [groups, outputs, columns]; zeros stay zeros.
        start: integers to begin with.
        steps: the scale of each weight.
        top: the greatest integer.
        seed: of the rows that each step sees.

    Returns:
        whole numbers, float32 [groups, outputs, columns].
    """
    exact = dense / steps
    lower = np.clip(np.where(exact >= start, start, start - 1), -top, top - 1).astype(np.float32)
    mixture = _Mixture(np.clip(exact - lower, 0.02, 0.98))
    scale = start.size / max(problem.error(start * steps), _LEAST)
    rng = np.random.default_rng(seed)
    count = problem.rows.shape[1]
    for iteration in range(_ITERATIONS):
        chosen = rng.integers(0, count, size=min(_ROWS, count))
        slope = problem.slope((lower + mixture.shares) * steps, chosen) * steps * np.float32(scale)
        mixture.step(slope, iteration / _ITERATIONS)
    found = np.clip(lower + (mixture.shares >= 0.5), -top, top)
    return np.where(dense == 0, 0, found).astype(np.float32)


class _Mixture:
    """Shares between 0 and 1, as stretched sigmoids, moved by Adam."""

    def __init__(self, shares: Array) -> None:
        inner = (shares + _STRETCH) / (1 + 2 * _STRETCH)
        self._hidden = np.log(inner / (1 - inner)).astype(np.float32)
        self._first: Array = np.zeros_like(self._hidden)
        self._second: Array = np.zeros_like(self._hidden)
        self._count = 0

    @property
    def shares(self) -> Array:
        return np.asarray(np.clip(self._sigmoid() * (1 + 2 * _STRETCH) - _STRETCH, 0, 1), dtype=np.float32)

    def _sigmoid(self) -> Array:
        return np.asarray(1 / (1 + np.exp(-self._hidden)), dtype=np.float32)

    def step(self, slope: Array, done: float) -> None:
        """One step against the gradient with respect to the shares, and towards whole ones once warm."""
        if done >= _WARM_UP:
            part = (done - _WARM_UP) / (1 - _WARM_UP)
            steep = _STEEP[1] + (_STEEP[0] - _STEEP[1]) * 0.5 * (1 + np.cos(np.pi * part))
            away = 2 * self.shares - 1
            push = 2 * steep * np.sign(away) * np.abs(away) ** (steep - 1)
            slope = np.asarray(slope - push, dtype=np.float32)
        sigmoid = self._sigmoid()
        gradient: Array = np.asarray(slope * sigmoid * (1 - sigmoid), dtype=np.float32)
        self._count += 1
        self._first += (np.float32(1 - _DECAYS[0]) * (gradient - self._first)).astype(np.float32)
        self._second += (np.float32(1 - _DECAYS[1]) * (np.square(gradient) - self._second)).astype(np.float32)
        first = self._first / (1 - _DECAYS[0] ** self._count)
        second = self._second / (1 - _DECAYS[1] ** self._count)
        self._hidden -= (_RATE * first / (np.sqrt(second) + _TINY)).astype(np.float32)
