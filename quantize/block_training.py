"""Training a block of a quantized graph towards the float network's tensor. Needs PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch

from edgewise.quantize.fisher import derivable
from edgewise.quantize.rounded_block import RoundedBlock, TrainedBias, TrainedScale, TrainedWeights
from edgewise.quantize.walking import Arrays

Tensor = torch.Tensor
Trained = TrainedWeights | TrainedBias | TrainedScale
HELD_OUT = 8  # every eighth sample judges and is not trained on

_SEED = 0
_SAMPLES, _PROBES = 32, 2  # of the Hessian: samples, and random directions for each
_EPOCHS, _BATCH = 6, 8
_RATES = {TrainedWeights: 0.004, TrainedBias: 0.02, TrainedScale: 0.01}  # in steps; of the mean size; of the logarithm
_LEAST = 1e-30  # of what is divided by


def importance(model: ir.Model, values: Sequence[ir.Value], samples: Sequence[Arrays]) -> dict[ir.Value, Tensor]:
    """How much the square of an error at a tensor counts, by the network's outputs: their Hessian, averaged over samples.

    Of the squared error of the outputs, which is least where nothing is rounded, the Hessian by a tensor is JᵀJ; with random
    signs r the mean of (Jᵀr)² is its diagonal. It is averaged over samples and told apart by channel and (where all samples
    have one shape) by position.

    Returns:
        per value a tensor that is broadcast to the value's shape, 1 in the mean.

    Raises:
        NotImplementedError: an operator of the network has no gradient here.
    """
    signs = torch.Generator().manual_seed(_SEED)
    seen: dict[ir.Value, list[Tensor]] = {value: [] for value in values}
    for sample in samples[:: max(1, len(samples) // _SAMPLES)]:
        known = derivable(model.graph, sample)
        outputs = [known[value] for value in model.graph.outputs if known[value].requires_grad]
        for probe in range(_PROBES):
            ways = [2.0 * torch.randint(0, 2, each.shape, generator=signs) - 1.0 for each in outputs]
            slopes = torch.autograd.grad(
                outputs, [known[value] for value in values], ways, retain_graph=probe + 1 < _PROBES, allow_unused=True
            )
            for value, slope in zip(values, slopes, strict=True):
                seen[value] += [] if slope is None else [slope.square()]
    return {value: _averaged(squares) for value, squares in seen.items()}


def _averaged(squares: list[Tensor]) -> Tensor:
    if not squares:
        return torch.ones(())
    rank = squares[0].ndim
    axis = 1 if rank == 4 else rank - 1
    others = [i for i in range(rank) if i != axis]
    by_channel = torch.stack([each.mean(others, keepdim=True) for each in squares]).mean(0)
    if others and all(each.shape == squares[0].shape for each in squares):
        by_channel = by_channel * torch.stack([each.mean(axis, keepdim=True) for each in squares]).mean(0)
    return by_channel / by_channel.mean().clamp(min=_LEAST)


class BlockTraining:
    """A block with what it reads and what it should give.

    Args:
        block: computes the output.
        given: what it reads, by name, an array for each sample.
        wanted: what the float network gives, an array for each sample.
        weight: of squared errors, broadcast to an output's shape.
    """

    def __init__(
        self,
        block: RoundedBlock,
        given: Mapping[str, Sequence[np.ndarray]],
        wanted: Sequence[np.ndarray],
        weight: Tensor,
    ) -> None:
        self._block, self._given, self._wanted, self._weight = block, given, wanted, weight
        self._held = [index for index in range(len(wanted)) if index % HELD_OUT == 0]
        self._seen = [index for index in range(len(wanted)) if index % HELD_OUT]

    def error(self) -> float:
        """The weighted squared error on held-out samples, of the wanted outputs' size."""
        with torch.no_grad():
            found = [self._loss(batch) for batch in self._batches(self._held)]
        return sum(float(loss) for loss, _ in found) / max(sum(size for _, size in found), _LEAST)

    def improve(self, trained: Sequence[Trained], spared: float = 0.0) -> float:
        """Train, and take it back where the error on held-out samples does not fall; returns that error."""
        before, old = self.error(), [each.parameter.detach().clone() for each in trained]
        self._train(trained, spared)
        after = self.error()
        if after < before:
            return after
        with torch.no_grad():
            for each, start in zip(trained, old, strict=True):
                each.parameter.copy_(start)
        return before

    def _train(self, trained: Sequence[Trained], spared: float) -> None:
        """Adam over the other samples; the rates fall along a cosine."""
        torch.manual_seed(_SEED)
        optimizer = torch.optim.Adam(
            [{"params": [each.parameter], "lr": _rate(each)} for each in trained], betas=(0.9, 0.99)
        )
        steps = _EPOCHS * len(self._batches(self._seen))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        with torch.no_grad():
            scale = max(self._loss(self._seen[:1])[1], _LEAST)
        for _ in range(_EPOCHS):
            batches = self._batches([self._seen[index] for index in torch.randperm(len(self._seen)).tolist()])
            for number in torch.randperm(len(batches)).tolist():
                optimizer.zero_grad()
                loss, _ = self._loss(batches[number], spared)
                torch.autograd.backward(loss / (scale * len(batches[number])))
                optimizer.step()
                schedule.step()

    def _batches(self, indices: Sequence[int]) -> list[list[int]]:
        """Samples of one form are computed together."""
        forms: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for index in indices:
            forms.setdefault(tuple(arrays[index].shape for arrays in self._given.values()), []).append(index)
        return [each[start : start + _BATCH] for each in forms.values() for start in range(0, len(each), _BATCH)]

    def _loss(self, batch: Sequence[int], spared: float = 0.0) -> tuple[Tensor, float]:
        inputs = {name: _stacked(arrays, batch) for name, arrays in self._given.items()}
        wanted = _stacked(self._wanted, batch)
        # The graph may hold a batch of one fast: each sample is computed as if it were alone.
        made = torch.vmap(lambda each: self._block(each, spared), randomness="different")(inputs)
        return ((made - wanted).square() * self._weight).sum(), float((wanted.square() * self._weight).sum())


def _rate(each: Trained) -> float:
    size = float(each.parameter.detach().abs().mean()) + _LEAST if isinstance(each, TrainedBias) else 1.0
    return _RATES[type(each)] * size


def _stacked(arrays: Sequence[np.ndarray], batch: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.stack([arrays[index] for index in batch]))
