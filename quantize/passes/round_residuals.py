"""Residual additions that an engine computes inside the convolution before them."""

from __future__ import annotations

import onnx_ir as ir

from edgewise.quantize.layers import WEIGHTED, constant_of
from edgewise.quantize.movement import moves
from edgewise.quantize.passes.deciding import DecidingPass


class RoundResiduals(DecidingPass):
    """Round the other branch of an addition that is fused into a convolution, where its sum is read as integers.

    Before::

        x ══► Conv ──► Add(skip) ──► Relu ══► Conv

    After::

        x ══► Conv ──► Add(══ skip) ──► Relu ══► Conv        ══ read as integers

    The convolution's own output stays as it is: it never leaves the kernel. A kernel that writes integers adds integers; left in
    float, the skip would be written a second time, in float, for the addition alone. Where the sum is not read as integers (a
    transformer's residual stream, which goes to a normalisation) nothing is rounded: the kernel adds in float there. The rule is that
    of NVIDIA's guide to explicit quantization ("quantize the residual input in skip-connections").
    """

    def decide(self, graph: ir.Graph) -> None:
        """Extend ``plan.uses``; from the last addition to the first, for the sum of one may be the skip of the next."""
        if not self.plan.spec.residuals:
            return
        for node in reversed(graph):
            if node.op_type != "Add" or node.domain or node in self.plan.refused:
                continue
            index = self._other_branch(node)
            if index is not None and self._read_as_integers(self._merged(node.outputs[0])):
                self.plan.round_use(node, index)

    def _merged(self, value: ir.Value) -> ir.Value:
        """The output of the activation that the kernel computes too, or the value itself."""
        uses = list(value.uses())
        fused = len(uses) == 1 and uses[0].idx == 0 and uses[0].node.op_type in self.plan.spec.fused_activations
        return uses[0].node.outputs[0] if fused else value

    def _read_as_integers(self, value: ir.Value) -> bool:
        """Whether some reader wants integers, also behind what only moves values."""
        if self.plan.is_rounded(value):
            return True
        movers = [use.node for use in value.uses() if moves(use.node, self.plan.spec.quantize_outputs)]
        return any(self._read_as_integers(node.outputs[0]) for node in movers)

    def _other_branch(self, node: ir.Node) -> int | None:
        """The index of the input that is added to a convolution's output; of two such, the second is rounded."""
        first, second = node.inputs
        if first is None or second is None or any(constant_of(value) is not None for value in (first, second)):
            return None
        shapes = [value.shape for value in (first, second)]
        if first is second or None in shapes or shapes[0] != shapes[1]:
            return None
        if self._fuses(first):
            return 1
        return 0 if self._fuses(second) else None

    def _fuses(self, value: ir.Value) -> bool:
        """Whether a quantized convolution makes it for this addition alone."""
        producer = value.producer()
        made = producer is not None and producer in self.plan.layers and producer.op_type in WEIGHTED[:2]
        return made and len(list(value.uses())) == 1 and not value.is_graph_output()
