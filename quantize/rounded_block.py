"""A block of a quantized graph as a PyTorch function whose integers, biases and scales can be trained. Needs PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from edgewise.quantize.biases import Bias
from edgewise.quantize.layers import attribute, constant_of
from edgewise.quantize.pruning.torch_ops import run_node
from edgewise.quantize.spec import LIMITS
from edgewise.quantize.stored import StoredWeights

Tensor = torch.Tensor
Known = dict[ir.Value, Tensor]
_REACH = 0.45  # steps from a stored integer within which its weight starts: it rounds to that integer, and may leave it
_ROUNDED = ("QuantizeLinear", "DequantizeLinear")


class TrainedWeights:
    """Integers of a layer. What is trained are floats, in steps, that are rounded to them; zeros of the dense layer stay zero.

    Args:
        stored: the integers in the graph.
        dense: the float network's weights, float32 in the same shape: each float starts at the integer, on their side of it.
    """

    def __init__(self, stored: StoredWeights, dense: NDArray[np.float32]) -> None:
        integers, steps = stored.integers().astype(np.float32), np.array(stored.steps(), dtype=np.float32)
        nearest = np.clip(dense / steps, integers - _REACH, integers + _REACH).astype(np.float32)
        self.stored = stored
        self.value = next(iter(stored.value.uses())).node.outputs[0]
        self.parameter = torch.from_numpy(nearest).requires_grad_()
        self._kept, self._steps = torch.from_numpy(np.array(dense != 0)), torch.from_numpy(steps)
        self._start = self._integers()

    def tensor(self) -> Tensor:
        """What the graph computes with; the gradient passes the rounding as if it were not there (straight through)."""
        top = self.stored.coding.top
        return _straight(self.parameter).clamp(-top, top) * self._kept * self._steps

    @property
    def moved(self) -> int:
        """How many integers differ from those it began with."""
        return int((self._integers() != self._start).sum())

    def write(self) -> None:
        """Put the integers into the graph."""
        self.stored.write(self._integers().numpy().astype(np.int8))

    def _integers(self) -> Tensor:
        top = self.stored.coding.top
        return self.parameter.detach().round().clamp(-top, top) * self._kept


class TrainedBias:
    """A layer's bias, float or int32, as floats."""

    def __init__(self, bias: Bias) -> None:
        self._bias, self._old = bias, bias.values()
        value = bias.node.inputs[bias.index]
        if value is None:
            raise ValueError(bias.node.name)
        self.value = value
        self.parameter = torch.from_numpy(np.array(self._old)).requires_grad_()

    def tensor(self) -> Tensor:
        """What is added."""
        return self.parameter

    def write(self) -> None:
        """Put it into the graph, on the grid that it has there."""
        self._bias.add(self.parameter.detach().numpy().astype(np.float64) - self._old)


class TrainedScale:
    """The scale of an activation, by the logarithm of a factor."""

    def __init__(self, value: ir.Value) -> None:
        self.value = value
        self._old = torch.from_numpy(np.array(constant_of(value), dtype=np.float32))
        self.parameter = torch.zeros((), requires_grad=True)

    def tensor(self) -> Tensor:
        """The scale."""
        return self._old * self.parameter.exp()

    def write(self) -> None:
        """Put it into the graph."""
        self.value.const_value = ir.tensor(self.tensor().detach().numpy().copy(), name=self.value.name)


@dataclass(frozen=True)
class Cut:
    """What of a quantized graph lies between some tensors and one that is computed from them.

    Attributes:
        nodes: in the order of the graph, QuantizeLinear and DequantizeLinear included.
        inputs: tensors that they read and do not make; no constants.
        output: what they compute.
    """

    nodes: Sequence[ir.Node]
    inputs: Sequence[ir.Value]
    output: ir.Value


class RoundedBlock:
    """Computes a cut's output; the gradient passes every rounding as if it were not there.

    Args:
        cut: where it begins and ends.
        trained: what takes the place of constants.
    """

    def __init__(self, cut: Cut, trained: Iterable[TrainedWeights | TrainedBias | TrainedScale]) -> None:
        self._cut, self._trained = cut, list(trained)
        self._constants = _constants(cut.nodes)

    def __call__(self, inputs: Mapping[str, Tensor], spared: float = 0.0) -> Tensor:
        """The output for inputs by name; ``spared``: the share of activations that are not rounded, drawn at random.

        Raises:
            NotImplementedError: an operator has no gradient here.
        """
        known: Known = self._constants | {value: inputs[str(value.name)] for value in self._cut.inputs}
        known |= {each.value: each.tensor() for each in self._trained}
        for node in self._cut.nodes:
            if node.outputs[0] not in known:
                known.update(zip(node.outputs, _run(node, known, spared), strict=False))
        return known[self._cut.output]


def _constants(nodes: Iterable[ir.Node]) -> Known:
    """Constants, and what is dequantized from them; integers that are values, not shapes, as floats."""
    known: Known = {}
    for node in nodes:
        for value in node.inputs:
            if value is not None and value not in known and (array := constant_of(value)) is not None:
                known[value] = torch.from_numpy(
                    np.array(array.astype(np.float32) if node.op_type in _ROUNDED else array)
                )
        if node.op_type == "DequantizeLinear" and all(value in known for value in node.inputs if value is not None):
            known[node.outputs[0]] = _run(node, known, 0.0)[0]
    return known


def _run(node: ir.Node, known: Known, spared: float) -> list[Tensor]:
    given = [None if value is None else known[value] for value in node.inputs]
    if node.domain or node.op_type not in _ROUNDED:
        return run_node(node, given)
    x, scale, zero = (*given, None)[:3]
    if x is None or scale is None:
        raise NotImplementedError(f"{node.op_type} without a scale has no gradient here")
    axis, group = attribute(node, "axis", 1), attribute(node, "block_size", 0)
    step, point = _spread(scale, x, axis, group), 0.0 if zero is None else _spread(zero, x, axis, group)
    if node.op_type == "DequantizeLinear":
        return [(x - point) * step]
    exact = x / step + point
    rounded = _straight(exact.clamp(*_limits(node)))
    return [rounded if not spared else torch.where(torch.rand_like(exact) < spared, exact, rounded)]


def _straight(x: Tensor) -> Tensor:
    return x + (x.detach().round() - x.detach())


def _limits(node: ir.Node) -> tuple[int, int]:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    return LIMITS["uint8" if value is None else str(value.dtype).lower()]


def _spread(each: Tensor, x: Tensor, axis: int, group: int) -> Tensor:
    """A scale or a zero point for every entry of a tensor."""
    if group:
        return each.repeat_interleave(group, axis)
    return each if each.numel() == 1 else each.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])
