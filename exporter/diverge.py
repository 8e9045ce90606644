"""Find the first node whose value is not what the source network has there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgewise.exporter.clean.names import ORIGIN
from edgewise.exporter.source import Arrays
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.errors import RunError
from edgewise.runtime.onnx_runner import OnnxRunner

# Gives the source's intermediate values, of those names that it knows.
Intermediates = Callable[[Sequence[str], Arrays], Arrays]


@dataclass(frozen=True)
class Divergence:
    """The first node, in the graph's order, whose value is off; ``location`` is a source line or empty."""

    node: str
    op: str
    value: str
    sqnr_db: float
    location: str

    def __str__(self) -> str:
        """As it stands in an error."""
        line = f", from {self.location}" if self.location else ""
        return f"the first node that diverges is {self.node} ({self.op}, {self.sqnr_db:.1f} dB){line}"


def first_divergence(
    model: ir.Model, intermediates: Intermediates, inputs: Arrays, min_sqnr_db: float, locations: Mapping[str, str]
) -> Divergence | None:
    """Compare every value that both networks have, in the graph's order.

    Args:
        model: the exported model; its values' ``meta`` tells their names in the source.
        intermediates: what the source has at a name.
        inputs: one sample on which the outputs differ.
        min_sqnr_db: a value with less diverges.
        locations: source lines by node name.

    Returns:
        The first value that diverges, or None when no value that can be compared does.
    """
    names = {
        str(value.name): str(value.meta.get(ORIGIN, value.name))
        for node in model.graph
        for value in node.outputs
        if value.name
    }
    want = intermediates(list(names.values()), inputs)
    tapped = [name for name, origin in names.items() if origin in want]
    if not tapped:
        return None
    have = OnnxRunner(model, outputs=tapped, optimize=False).run(inputs)
    for node in model.graph:
        for value in node.outputs:
            name = str(value.name)
            if name in have and (sqnr := _sqnr(want[names[name]], have[name])) is not None and sqnr < min_sqnr_db:
                return Divergence(str(node.name), node.op_type, name, sqnr, locations.get(str(node.name), ""))
    return None


def _sqnr(want: np.ndarray, have: np.ndarray) -> float | None:
    """In dB; None when the two are not the same tensor (a pass laid it out in another way)."""
    try:
        return compare_outputs([{"value": want}], [{"value": have}])[0].sqnr_db
    except RunError:
        return None


def of_onnx(model: ir.Model) -> Intermediates:
    """Intermediate values of an untouched ONNX model."""
    known = {str(value.name) for node in model.graph for value in node.outputs if value.name}

    def compute(names: Sequence[str], inputs: Arrays) -> Arrays:
        wanted = sorted(known & set(names))
        return OnnxRunner(model, outputs=wanted, optimize=False).run(inputs) if wanted else {}

    return compute
