"""The cleaning pipeline: an explicit list of passes, run until nothing changes."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import optimizer


def clean(model: ir.Model) -> dict[str, int]:
    """Clean a model in place; gives how often each pass changed something."""
    optimizer.optimize_ir(model)
    return {}
