"""The ONNX model of a source before it is cleaned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from edgewise.exporter.diverge import Intermediates, of_onnx
from edgewise.exporter.finish import fix_dims, mend_outputs
from edgewise.exporter.onnx_source import OnnxSource
from edgewise.exporter.source import Arrays, Source
from edgewise.exporter.upgrade import upgrade


@dataclass
class Draft:
    """A model before cleaning, and a way to get at the source's intermediate values.

    Attributes:
        model: inputs and outputs are named.
        intermediates: what the source has at a name.
        warnings: of tracing and upgrading.
        facts: for the report.
    """

    model: ir.Model
    intermediates: Intermediates
    warnings: list[str]
    facts: dict[str, Any] = field(default_factory=dict)


def draft_of(
    source: Source, samples: Sequence[Arrays], references: list[Arrays], opset: int, min_sqnr_db: float, seed: int
) -> Draft:
    """A source at an opset; ``references`` are computed anew where the network turns out to compute in bfloat16 inside."""
    if isinstance(source, OnnxSource):
        return _of_onnx(source, samples, references, opset, min_sqnr_db)
    from edgewise.exporter.torch_draft import draft_of_torch
    from edgewise.exporter.torch_source import TorchSource

    if isinstance(source, TorchSource):
        return draft_of_torch(source, samples, references, opset, seed)
    raise TypeError(f"no such source: {type(source).__name__}")


def _of_onnx(
    source: OnnxSource, samples: Sequence[Arrays], references: list[Arrays], opset: int, min_sqnr_db: float
) -> Draft:
    model = source.model()
    fix_dims(model, source.inputs)
    warnings = mend_outputs(model, references)
    model, facts = upgrade(model, opset, samples, references, min_sqnr_db)
    if "reason" in facts:
        warnings.append(f"kept at opset {facts['from']}: {facts['reason']}")
    return Draft(model, of_onnx(source.model()), warnings, {"opset": facts})
