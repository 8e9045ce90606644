"""How far integers reach between layers."""

from __future__ import annotations

import onnx_ir as ir

from edgewise.quantize.layers import WEIGHTED
from edgewise.quantize.movement import moved_inputs, moves
from edgewise.quantize.passes.deciding import DecidingPass


class GrowIntegers(DecidingPass):
    """Keep tensors in integers from one layer to the next, through activations, residual additions, pools and moves.

    Three rules, in the order of the graph (══ integers, ── float):

    1. A layer makes integers, after the activation that is merged into it::

           Conv ── Relu ── …            Conv ── Relu ══ …

    2. What moves values hands integers on, on the same scale, so nothing is rounded twice::

           ══ MaxPool ── Flatten ──     ══ MaxPool ══ Flatten ══

       Concat joins the scales of its inputs, which costs accuracy: only for a reader that wants integers, and one scale
       for one Concat. Chains of them (DenseNet, ShuffleNet) would end up with one scale for a whole stage.

    3. An Add (or a pool) whose inputs are all integers, and whose output some layer wants, computes on integers::

           Conv ══╗                     Conv ══╗
                 Add ── Relu ── Conv          Add ── Relu ══ Conv
           skip ══╝                     skip ══╝

       In a transformer the linear layers make floats, so the residual stream, with its outlier channels, stays float.
    """

    def decide(self, graph: ir.Graph) -> None:
        """Fill ``plan.uses`` and ``plan.whole``."""
        self._wanted = self._find_wanted(graph)
        for node in graph:
            if node in self.plan.layers:
                if node.op_type in self.plan.spec.quantize_outputs:
                    self.plan.round_whole(self._merged(node.outputs[0]))
            elif moves(node, self.plan.spec.quantize_outputs):
                self._hand_on(node)
            elif self._computes(node):
                self._compute(node)

    def _hand_on(self, node: ir.Node) -> None:
        indices = moved_inputs(node)
        values = [value for index in indices if (value := node.inputs[index]) is not None]
        if not all(value in self.plan.whole for value in values):
            return
        if len(values) > 1 and not (self._wants(node) and self.plan.may_join(values)):
            return
        for index in indices:
            self.plan.round_use(node, index)
        for value in [*values[1:], *node.outputs]:
            self.plan.share(values[0], value)
        for output in node.outputs:
            self.plan.round_whole(output)

    def _compute(self, node: ir.Node) -> None:
        values = [value for value in node.inputs if value is not None]
        if not self._wants(node) or not all(value in self.plan.whole for value in values):
            return
        for index in range(len(values)):
            self.plan.round_use(node, index)
        self.plan.round_whole(self._merged(node.outputs[0]))

    def _computes(self, node: ir.Node) -> bool:
        """Whether the target computes this operator, which has no weights, on integers."""
        spec = self.plan.spec
        if node.domain or node in self.plan.refused:
            return False
        return node.op_type in spec.quantize_outputs and node.op_type not in WEIGHTED

    def _wants(self, node: ir.Node) -> bool:
        return any(output in self._wanted for output in node.outputs)

    def _merged(self, value: ir.Value) -> ir.Value:
        """The output of the activation that is merged into the node that makes ``value``, or the value itself."""
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output():
            return value
        reader = uses[0].node
        fused = reader.op_type in self.plan.spec.fused_activations and not reader.domain and reader.graph is value.graph
        return reader.outputs[0] if fused and uses[0].idx == 0 else value

    def _find_wanted(self, graph: ir.Graph) -> set[ir.Value]:
        """Values that reach a layer through operators that could hand integers on."""
        wanted = set(self.plan.uses)
        spec = self.plan.spec
        for node in reversed(graph):
            if node in self.plan.layers:
                continue
            if moves(node, spec.quantize_outputs) and any(output in wanted for output in node.outputs):
                wanted.update(value for index in moved_inputs(node) if (value := node.inputs[index]) is not None)
            elif self._computes(node) and self._merged(node.outputs[0]) in wanted:
                wanted.update(value for value in [*node.inputs, *node.outputs] if value is not None)
        return wanted
