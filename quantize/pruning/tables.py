"""Zeros in tables of embeddings: each row keeps its largest numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.layers import constant_of
from edgewise.quantize.passes.quantize_tables import tables_of

_UNSTRUCTURED = "unstructured"


def check_tables(pattern: str) -> None:
    """Raise QuantizeError for a pattern that a table, which no layer multiplies with, has no use for."""
    if pattern != _UNSTRUCTURED:
        raise QuantizeError(
            "cannot prune tables of embeddings in this pattern",
            where=f"prune, pattern {pattern}",
            found="tables asked for",
            expected=f"the pattern {_UNSTRUCTURED}: rows are looked up, so zeros save memory alone",
            fix=f"Choose {_UNSTRUCTURED}, or leave the tables as they are",
        )


def table_values(graph: ir.Graph) -> list[ir.Value]:
    """The constants that embeddings are looked up in, and nothing else reads."""
    found: dict[ir.Value, int] = {}
    for node in tables_of(graph):
        value = node.inputs[0]
        if value is not None:
            found[value] = found.get(value, 0) + 1
    return [value for value, readers in found.items() if len(value.uses()) == readers]


def prune_tables(graph: ir.Graph, sparsity: float, skip: Sequence[str]) -> list[dict[str, Any]]:
    """Set the smallest numbers of each row to zero, in place; a line of the report's ``layers`` for each table."""
    done = []
    for value in table_values(graph):
        node = next(iter(value.uses())).node
        if node.name in skip:
            continue
        table = np.array(constant_of(value), dtype=np.float32)
        gone = round(sparsity * table.shape[1])
        np.put_along_axis(table, np.argsort(np.abs(table), axis=1)[:, :gone], 0, axis=1)
        value.const_value = ir.tensor(table, name=value.name)
        density = float(np.count_nonzero(table) / table.size)
        done.append({"name": node.name, "op": node.op_type, "weight": value.name, "density": density})
    return done
