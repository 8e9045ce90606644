"""The first and the last layers in 8 bits."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import onnx_ir as ir

from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.passes.deciding import DecidingPass
from edgewise.quantize.plan import Plan


class WidenLayers(DecidingPass):
    """Give 8 bits, weights and activations, to the layers at the network's ends and to those that are asked for.

    Before (decided, not yet written)::

        x ══4══► Conv ──► … ══4══► Conv ──► … ══4══► Gemm ──► y

    After::

        x ══8══► Conv ──► … ══4══► Conv ──► … ══8══► Gemm ──► y

    The ends are the layers that read an input of the network, or whose output reaches an output of it without another
    layer in between. They have few weights, and what they lose is lost for all (J. Choi et al., "PACT", 2018). Which
    others deserve 8 bits, ``edgewise quantize --analyze`` tells.
    """

    def __init__(self, plan: Plan, wide: Sequence[str] = ()) -> None:
        super().__init__(plan)
        self._asked = list(dict.fromkeys(wide))

    def decide(self, graph: ir.Graph) -> None:
        """Fill ``plan.wide``.

        Raises:
            QuantizeError: a name asked for is no quantized layer's.
        """
        layers = {str(node.name): node for node in self.plan.layers}
        for name in self._asked:
            if name not in layers:
                near = difflib.get_close_matches(name, layers, n=1, cutoff=0)
                raise QuantizeError(
                    "cannot give a layer 8 bits",
                    where=f"wide {name!r}",
                    found="no quantized layer of that name",
                    expected=f"a layer that is quantized, such as {near[0]!r}" if near else "a layer that is quantized",
                    fix="List the names with `edgewise inspect`",
                )
            self.plan.wide.add(layers[name])
        if self.plan.spec.wide_ends:
            self.plan.wide |= _first(self.plan, graph) | _last(self.plan, graph)


def _first(plan: Plan, graph: ir.Graph) -> set[ir.Node]:
    """Layers before which there is no other layer on some way from an input."""
    fresh = set(graph.inputs)
    for node in graph:
        if node not in plan.layers and any(value in fresh for value in node.inputs):
            fresh.update(node.outputs)
    return {
        node for node, layer in plan.layers.items() if any(node.inputs[index] in fresh for index in layer.activations)
    }


def _last(plan: Plan, graph: ir.Graph) -> set[ir.Node]:
    ends = set(graph.outputs)
    for node in reversed(graph):
        if node not in plan.layers and any(value in ends for value in node.outputs):
            ends.update(value for value in node.inputs if value is not None)
    return {node for node in plan.layers if any(value in ends for value in node.outputs)}
