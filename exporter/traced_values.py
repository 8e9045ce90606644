"""Intermediate values of a program that PyTorch traced: what the search for the first node that diverges compares with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.export.graph_signature import InputKind

from edgewise.exporter.diverge import Intermediates
from edgewise.exporter.quiet import quiet
from edgewise.exporter.source import Arrays


def of_program(program: torch.export.ExportedProgram, order: Sequence[str]) -> Intermediates:
    """Intermediate values of an exported program, by the names of its nodes; ``order`` names the inputs in its order."""

    def compute(names: Sequence[str], inputs: Arrays) -> Arrays:
        tap = _Tap(program.graph_module, frozenset(names))
        arguments = _placeholders(program, [torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in order])
        with quiet(), torch.no_grad():
            tap.run(*arguments)
        return tap.values

    return compute


class _Tap(torch.fx.Interpreter):
    """Runs a graph and keeps the tensors of some nodes."""

    def __init__(self, module: torch.fx.GraphModule, names: frozenset[str]) -> None:
        super().__init__(module)
        self.names, self.values = names, Arrays()

    def run_node(self, n: torch.fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self.names and isinstance(result, torch.Tensor):
            self.values[n.name] = result.detach().cpu().numpy().copy()
        return result


def _placeholders(program: torch.export.ExportedProgram, inputs: Sequence[torch.Tensor]) -> list[Any]:
    """Parameters, buffers, constants and inputs in the order of the graph's placeholders."""
    passed = iter(inputs)
    tensors: Mapping[str, Any] = {**program.constants, **program.state_dict}
    return [
        next(passed) if spec.kind is InputKind.USER_INPUT else tensors[str(spec.target)]
        for spec in program.graph_signature.input_specs
    ]
