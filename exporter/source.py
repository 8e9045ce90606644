"""A trained network as it came: the reference that every later stage is compared with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgewise.exporter.errors import ExportError
from edgewise.runtime.errors import RunError
from edgewise.runtime.tensors import TensorSpec

Arrays = dict[str, np.ndarray]


@dataclass
class Source(ABC):
    """An opened source.

    Attributes:
        kind: ``onnx``, ``pt2``, ``torchscript``, ``state_dict`` or ``module``.
        sha256: hex digest of the file (of the weights' names, dtypes, shapes and bytes for a live module).
        inputs: what the network takes; strings are dynamic dims.
        bounds: for integer inputs that index a table, its size: random samples stay below it.
        facts: what was loaded, wrappers stripped, modules fused; JSON.
    """

    kind: str
    sha256: str
    inputs: list[TensorSpec]
    facts: dict[str, Any] = field(default_factory=dict)
    bounds: dict[str, int] = field(default_factory=dict, kw_only=True)

    @abstractmethod
    def run(self, inputs: Arrays) -> Arrays:
        """Compute the original network: arrays by input name to arrays by output name.

        Raises:
            ExportError: an input is missing or does not fit its spec, or the network refuses it.
        """

    def running(self) -> AbstractContextManager[None]:
        """Around many runs: what each of them would set up for itself is set up once."""
        return nullcontext()

    def check_inputs(self, inputs: Arrays) -> None:
        """Refuse missing, extra or misshapen arrays.

        Raises:
            ExportError: says which input, what came and what was wanted.
        """
        names = [spec.name for spec in self.inputs]
        if set(inputs) != set(names):
            raise ExportError(
                "the inputs do not fit the network",
                where=self.kind,
                found=", ".join(inputs) or "none",
                expected=", ".join(names),
                fix="Pass one array for each input",
            )
        for spec in self.inputs:
            try:
                spec.check(inputs[spec.name], where=self.kind)
            except RunError as error:
                raise ExportError(
                    error.what, where=error.where, found=error.found, expected=error.expected, fix=error.fix
                ) from error

    def refused(self, inputs: Arrays, where: str, found: str) -> ExportError:
        """The error of :meth:`run` where the network itself does not take the arrays."""
        shapes = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in inputs.items())
        return ExportError(
            "the network does not take the inputs",
            where=where,
            found=f"{found}; inputs {shapes}",
            expected="inputs of the shape and dtype that it was made for",
            fix="Give their names, dtypes and shapes with --input NAME=f32[1,3,224,224], one for each; a name as a dim means any size",
        )
