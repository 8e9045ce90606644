"""A part of a graph as a PyTorch function with parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch

from edgewise.quantize.layers import constant_of
from edgewise.quantize.pruning.blocks import Part
from edgewise.quantize.pruning.torch_ops import run_node


class TorchPart:
    """Computes a part's output, with gradients for the constants that are to be trained.

    Attributes:
        parameters: one tensor per trained constant, in their order.
    """

    def __init__(self, part: Part, trained: Sequence[ir.Value]) -> None:
        self._part, self._trained = part, list(trained)
        constants = {value: None for node in part.nodes for value in node.inputs if constant_of(value) is not None}
        self._tensors = {
            value: torch.from_numpy(np.array(constant_of(value))) for value in constants if value is not None
        }
        self._kept = {value: self._tensors[value] != 0 for value in self._trained if self._tensors[value].ndim > 1}
        for value in self._trained:
            self._tensors[value].requires_grad_()
        self.parameters = [self._tensors[value] for value in self._trained]

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The part's output for inputs by name."""
        known: dict[ir.Value, torch.Tensor] = dict(self._tensors)
        known.update({value: inputs[str(value.name)] for value in self._part.inputs})
        for node in self._part.nodes:
            given = [None if value is None else known[value] for value in node.inputs]
            known.update(zip(node.outputs, run_node(node, given), strict=False))
        return known[self._part.output]

    def keep_zeros(self) -> None:
        """Set what was zero in weights to zero again, after a step of an optimizer."""
        with torch.no_grad():
            for value, kept in self._kept.items():
                self._tensors[value].masked_fill_(~kept, 0.0)

    def write_back(self) -> None:
        """Put the trained constants into the graph."""
        for value in self._trained:
            value.const_value = ir.tensor(self._tensors[value].detach().numpy().copy(), name=value.name)
