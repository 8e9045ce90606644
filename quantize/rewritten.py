"""What quantize and prune give back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Rewritten:
    """A new model and what was done to it; the model that went in is untouched. ``report`` is plain JSON."""

    model: ir.Model
    report: dict[str, Any] = field(default_factory=dict)
