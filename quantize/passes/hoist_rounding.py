"""Rounding earlier, so that values move as integers."""

from __future__ import annotations

import onnx_ir as ir

from edgewise.quantize.movement import moved_inputs, moves, selects
from edgewise.quantize.passes.deciding import DecidingPass


class HoistRounding(DecidingPass):
    """Round before what moves values rather than after it: the same numbers, in a quarter of the bytes.

    Before::

        Add ── Reshape ── Transpose ══ MatMul

    After::

        Add ══ Reshape ══ Transpose ══ MatMul

    Only where every reader of the output reads integers. Not above Split, Slice and Gather: their parts get scales of
    their own.
    """

    def decide(self, graph: ir.Graph) -> None:
        """Extend ``plan.uses`` and ``plan.whole`` from readers to makers."""
        for node in reversed(graph):
            if moves(node, self.plan.spec.quantize_outputs) and not selects(node) and self._all_read_integers(node):
                self._hoist(node)

    def _all_read_integers(self, node: ir.Node) -> bool:
        output = node.outputs[0]
        if output in self.plan.whole or output.is_graph_output() or not self.plan.is_rounded(output):
            return False
        return len(self.plan.uses[output]) == len(list(output.uses()))

    def _hoist(self, node: ir.Node) -> None:
        output = node.outputs[0]
        values = [value for index in moved_inputs(node) if (value := node.inputs[index]) is not None]
        if len(values) > 1 and not self.plan.may_join([*values, output]):
            return
        self.plan.round_whole(output)
        for index in moved_inputs(node):
            value = node.inputs[index]
            if value is not None:
                self.plan.round_use(node, index)
                self.plan.share(value, output)
