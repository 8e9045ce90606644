"""Which weights go: one class per pattern. A pattern sees a layer as weights[output, position, input]."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgewise.quantize.errors import QuantizeError

Weights = NDArray[np.float32]
Scores = NDArray[np.floating]
Mask = NDArray[np.bool_]

_BLOCK = re.compile(r"block:([1-9]\d*)x([1-9]\d*)")
_N_OF_M = re.compile(r"([1-9]\d*):([1-9]\d*)")


class Pattern(Protocol):
    """A pattern of zeros."""

    @property
    def outputs(self) -> int:
        """How many consecutive outputs go together."""

    def refusal(self, shape: tuple[int, ...]) -> str:
        """Why weights of this shape cannot have the pattern; empty when they can."""

    def units(self, scores: Scores) -> Scores:
        """The sums of the scores of what is kept or removed together."""

    def keep(self, scores: Scores, sparsity: float) -> Mask:
        """What stays, as a mask of the same shape: True where the sums of the scores (none below 0) are larger."""


@dataclass(frozen=True)
class Unstructured:
    """Single weights, anywhere in the layer (Han et al. 2015)."""

    outputs: int = 1

    def refusal(self, shape: tuple[int, ...]) -> str:
        """Every shape will do."""
        return ""

    def units(self, scores: Scores) -> Scores:
        """Each weight by itself."""
        return scores

    def keep(self, scores: Scores, sparsity: float) -> Mask:
        """The largest scores of the layer."""
        return _largest(scores, sparsity)


@dataclass(frozen=True)
class Block:
    """Blocks of ``inputs`` consecutive inputs by ``outputs`` consecutive outputs, kept or removed together.

    The blocks of a convolution lie along its input channels, at one kernel position: what a packed layout of four
    channels at a time reads together.
    """

    inputs: int
    outputs: int

    def refusal(self, shape: tuple[int, ...]) -> str:
        """Both dims must be whole numbers of blocks."""
        made, _, read = shape
        if read % self.inputs:
            return f"{read} inputs are no multiple of {self.inputs}"
        return f"{made} outputs are no multiple of {self.outputs}" if made % self.outputs else ""

    def units(self, scores: Scores) -> Scores:
        """The sums of the blocks, as [outputs, positions, inputs] counted in blocks."""
        made, positions, read = scores.shape
        blocks = scores.reshape(made // self.outputs, self.outputs, positions, read // self.inputs, self.inputs)
        return np.asarray(blocks.sum(axis=(1, 4)))

    def keep(self, scores: Scores, sparsity: float) -> Mask:
        """The blocks with the largest sums."""
        kept = _largest(self.units(scores), sparsity)
        return np.repeat(np.repeat(kept, self.outputs, axis=0), self.inputs, axis=2)


@dataclass(frozen=True)
class NOfM:
    """At most ``n`` weights other than zero among every ``m`` consecutive inputs (Mishra et al. 2021 for 2:4)."""

    n: int
    m: int
    outputs: int = 1

    def refusal(self, shape: tuple[int, ...]) -> str:
        """The inputs must be whole groups."""
        return f"{shape[2]} inputs are no multiple of {self.m}" if shape[2] % self.m else ""

    def units(self, scores: Scores) -> Scores:
        """Each weight by itself."""
        return scores

    def keep(self, scores: Scores, sparsity: float) -> Mask:
        """The ``n`` largest of each group; the sparsity follows from the pattern."""
        groups = scores.reshape(-1, self.m)
        order = np.argsort(-groups, axis=1, kind="stable")
        mask = np.zeros(groups.shape, np.bool_)
        np.put_along_axis(mask, order[:, : self.n], True, axis=1)
        return mask.reshape(scores.shape)


def parse_pattern(text: str, sparsity: float) -> Pattern:
    """Read ``unstructured``, ``block:RxC`` or ``N:M``, and check that the sparsity is one that it can have.

    Raises:
        QuantizeError: an unknown pattern, a sparsity outside 0 to 1, or one that is not that of ``N:M``.
    """
    if not 0 <= sparsity < 1:
        raise _bad_sparsity(text, sparsity, "a fraction from 0 to below 1")
    if text == "unstructured":
        return Unstructured()
    if block := _BLOCK.fullmatch(text):
        return Block(int(block[1]), int(block[2]))
    if (group := _N_OF_M.fullmatch(text)) and int(group[1]) < int(group[2]):
        pattern = NOfM(int(group[1]), int(group[2]))
        implied = 1 - pattern.n / pattern.m
        if abs(implied - sparsity) > 0.005:
            raise _bad_sparsity(text, sparsity, f"{implied:.4g}, which is what {text} leaves out")
        return pattern
    raise QuantizeError(
        "unknown pattern",
        where="pattern",
        found=repr(text),
        expected="unstructured, channel, head, width, low-rank, slice, block:RxC (R inputs by C outputs) or N:M with N below M, such as 2:4",
        fix="Use one of these",
    )


def _bad_sparsity(text: str, sparsity: float, expected: str) -> QuantizeError:
    return QuantizeError(
        "the pattern does not have this sparsity",
        where=f"pattern {text}",
        found=f"{sparsity:g}",
        expected=expected,
        fix="Change the sparsity or the pattern",
    )


def _largest(scores: Scores, sparsity: float) -> Mask:
    """True for all but the smallest ``sparsity`` of the scores; ties go in the order in which they are stored."""
    removed = round(sparsity * scores.size)
    if removed == 0:
        return np.ones(scores.shape, np.bool_)
    flat = scores.reshape(-1)
    least = np.partition(flat, removed - 1)[removed - 1]
    mask: Mask = flat > least
    ties = np.flatnonzero(flat == least)
    mask[ties[removed - np.count_nonzero(flat < least) :]] = True
    return mask.reshape(scores.shape)
