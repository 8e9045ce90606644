"""Saying what stays in float."""

from __future__ import annotations

import onnx_ir as ir

from edgewise.quantize.layers import constant_of
from edgewise.quantize.passes.deciding import DecidingPass

_NORMALIZES = "normalization divides by a spread that 8 bits do not resolve"
_SATURATES = "its slopes matter where 8 bits have few steps"
_FLOAT: dict[str, str] = {
    "LayerNormalization": _NORMALIZES,
    "RMSNormalization": _NORMALIZES,
    "GroupNormalization": _NORMALIZES,
    "InstanceNormalization": _NORMALIZES,
    "Softmax": "exponentials of 8-bit scores lose the small probabilities",
    "LogSoftmax": "exponentials of 8-bit scores lose the small probabilities",
    "Gelu": _SATURATES,
    "Erf": _SATURATES,
}
_RESIDUAL = "its inputs are made in float: a residual stream keeps its outlier channels"
_UNREAD = "no layer after it reads integers"
_TARGET = "the target adds in float"


class NoteFloat(DecidingPass):
    """Give each normalization, Softmax, GELU and addition of two activations that stays in float its reason.

    Before (the plan says nothing about these)::

        x ──► LayerNormalization ══► MatMul ──► Add(x) ──► …

    After::

        refused: LayerNormalization ("normalization divides …"), Add ("its inputs are made in float …")

    Runs after the passes that decide what becomes integer. Bodies of control flow get a note: they are left as they are.
    """

    def decide(self, graph: ir.Graph) -> None:
        """Extend ``plan.refused`` and ``plan.notes``."""
        for node in graph:
            if any(
                attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
                for attribute in node.attributes.values()
            ):
                self.plan.notes.append(f"{node.op_type} {node.name!r}: its bodies are left in float")
            if node.domain or node in self.plan.refused or self.plan.spec.weights_only:
                continue
            if node.op_type in _FLOAT:
                self.plan.refused[node] = _FLOAT[node.op_type]
            elif node.op_type == "Add" and self._adds_floats(node):
                self.plan.refused[node] = self._why(node)

    def _adds_floats(self, node: ir.Node) -> bool:
        values = [value for value in node.inputs if value is not None and constant_of(value) is None]
        read = [(node, index) in self.plan.uses.get(value, []) for index, value in enumerate(node.inputs) if value]
        integer = any(read) if self.plan.spec.residuals else all(read)
        return len(values) == 2 and not integer and node.outputs[0].dtype in (None, ir.DataType.FLOAT)

    def _why(self, node: ir.Node) -> str:
        if "Add" not in self.plan.spec.quantize_outputs:
            return _TARGET
        return _UNREAD if all(value in self.plan.whole for value in node.inputs) else _RESIDUAL
