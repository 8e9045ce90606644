"""The form of passes that win accuracy back."""

from __future__ import annotations

import abc
from typing import Any

import onnx_ir as ir

from edgewise.quantize.plan import Plan
from edgewise.quantize.walking import Arrays
from edgewise.runtime.progress import Progress, silent


class Gains(ir.passes.InPlacePass, abc.ABC):
    """Changes a quantized model where that brings it nearer to the float network.

    Args:
        reference: the float network that the plan was made for, with the same names.
        plan: the plan that was carried out on the model.
        samples: inputs by name, one entry a sample.
        progress: told how far it is.

    Attributes:
        gains: one line of the report for each layer or block that was changed.
    """

    def __init__(self, reference: ir.Model, plan: Plan, samples: list[Arrays], progress: Progress = silent) -> None:
        self._reference, self._plan, self._samples, self._progress = reference, plan, samples, progress
        self.gains: list[dict[str, Any]] = []
