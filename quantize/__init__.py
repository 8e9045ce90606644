"""ONNX to ONNX passes: quantize, prune, rewrite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.rewritten import Rewritten
from edgewise.quantize.spec import QuantSpec
from edgewise.runtime.extras import lazy_exports

if TYPE_CHECKING:
    from edgewise.quantize.observers import OBSERVERS
    from edgewise.quantize.pipeline import quantize

__all__ = ["OBSERVERS", "QuantSpec", "QuantizeError", "Rewritten", "quantize"]

__getattr__ = lazy_exports(
    {
        "OBSERVERS": "edgewise.quantize.observers",
        "quantize": "edgewise.quantize.pipeline",
    },
    extra="graph",
)
