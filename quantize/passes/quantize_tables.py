"""Tables of embeddings as integers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgewise.quantize.layers import attribute, constant_of
from edgewise.quantize.passes.writing import Writer
from edgewise.quantize.plan import Plan
from edgewise.quantize.stored import Coding

_LEAST_ELEMENTS = 1 << 14
_BITS = 8


def tables_of(graph: ir.Graph) -> list[ir.Node]:
    """Gathers of rows out of a large constant matrix of floats: what embeddings are."""
    return [node for node in graph if node.op_type == "Gather" and not node.domain and _is_table(node)]


def _is_table(node: ir.Node) -> bool:
    array = constant_of(node.inputs[0])
    if array is None or array.dtype != np.float32 or array.ndim != 2 or array.size < _LEAST_ELEMENTS:
        return False
    return attribute(node, "axis", 0) in (0, -2) and bool(np.isfinite(array).all())


class QuantizeTables(ir.passes.InPlacePass):
    """Store embeddings in 8 bits with a scale per row; nothing is calibrated, for rows are read as they are.

    Before::

        table: f32[V,D] ──► Gather(ids)

    After::

        table_int8: i8[V,D] ─► DQ(scale f32[V], axis 0) ─► Gather(ids)
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite every table that only Gathers read."""
        found: dict[ir.Value, list[ir.Node]] = {}
        for node in tables_of(model.graph) if self._plan.spec.tables else ():
            value = node.inputs[0]
            if value is not None:
                found.setdefault(value, []).append(node)
        done = [value for value, nodes in found.items() if len(value.uses()) == len(nodes)]
        for value in done:
            self._write(model.graph, value, found[value])
        if done:
            self._plan.notes.append(f"{len(done)} tables of embeddings in int8, a scale per row")
        return ir.passes.PassResult(model, modified=bool(done))

    def _write(self, graph: ir.Graph, value: ir.Value, nodes: list[ir.Node]) -> None:
        writer, coding = Writer(graph), Coding(axis=0, bits=_BITS)
        table = np.asarray(constant_of(value), dtype=np.float32)
        scales = coding.scales(table)
        integers = np.clip(np.rint(table / scales[:, None]), -coding.top, coding.top).astype(np.int8)
        stored = writer.tensor(f"{value.name}_int8", coding.tensor(integers))
        scale = writer.constant(f"{value.name}_scale", scales)
        zero = writer.tensor(f"{value.name}_zero_point", coding.tensor(np.zeros(scales.shape, np.int8)))
        made = writer.dequantize(stored, scale, zero, axis=0)
        graph.insert_before(nodes[0], made)
        for node in nodes:
            node.replace_input_with(0, made.outputs[0])
