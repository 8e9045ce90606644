"""Bring an old ONNX file to a newer opset, where the converter can and the numbers stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
import onnx_ir as ir

from edgewise.exporter.errors import first_line
from edgewise.exporter.quiet import quiet
from edgewise.exporter.source import Arrays
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.errors import RunError
from edgewise.runtime.onnx_runner import OnnxRunner

MAX_IR_VERSION = 10  # the newest that ONNX Runtime of 2024 reads; later ones add nothing that we write
_MIN_IR_VERSION = 4  # from here on an initializer need not be an input as well


def upgrade(
    model: ir.Model, opset: int, samples: Sequence[Arrays], references: Sequence[Arrays], min_sqnr_db: float
) -> tuple[ir.Model, dict[str, Any]]:
    """Convert a model to ``opset`` with ONNX's version converter, and keep the result where it computes the same.

    Returns:
        The upgraded model, or the one passed in; facts: ``from``, ``to`` and, when it stays as it is, the ``reason``.
    """
    old = model.opset_imports.get("", 0)
    facts: dict[str, Any] = {"from": old, "to": old}
    if old == opset:
        return model, facts
    if old > opset:
        return model, facts | {"reason": f"its opset is newer than {opset}; engines that need an older one will say so"}
    set_ir_version(model)  # before version 4 the converter looks for initializers among the inputs
    try:
        with quiet():
            proto = onnx.version_converter.convert_version(ir.to_proto(model), opset)
        upgraded = ir.from_proto(proto)
        runner = OnnxRunner(upgraded)
        have = [runner.run(sample) for sample in samples]
        worst = min(parity.sqnr_db for parity in compare_outputs(references, have))
    except (onnx.version_converter.ConvertError, RuntimeError, ValueError, TypeError, IndexError, RunError) as error:
        return model, facts | {"reason": f"the converter to opset {opset} fails: {first_line(error)}"}
    if worst < min_sqnr_db:
        return model, facts | {"reason": f"converted to opset {opset} it computes something else ({worst:.1f} dB)"}
    return upgraded, facts | {"to": opset}


def set_ir_version(model: ir.Model) -> None:
    """An IR version that runtimes in use read."""
    model.ir_version = max(_MIN_IR_VERSION, min(model.ir_version, MAX_IR_VERSION))
