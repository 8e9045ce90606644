"""Operators that ONNX itself defines by others: where the table has no row, the definition takes their place."""

from __future__ import annotations

import onnx_ir as ir

from edgewise.targets.coreml.table import table
from edgewise.targets.definitions import onnx_functions as definitions


def is_defined(domain: str, op: str, opset: int) -> bool:
    """Whether a node of that operator is replaced by its definition: ONNX has one, and the table has no row."""
    return (domain, op) not in table() and definitions.is_defined(domain, op, opset)


def expand(model: ir.Model) -> ir.Model:
    """The model with such nodes (``Attention``, ``RotaryEmbedding``, ``AffineGrid``, …) written out; itself when it has none."""
    return definitions.expand(model, lambda node: (node.domain, node.op_type) in table())
