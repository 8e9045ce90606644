"""The base of passes that look at the graph and write into a Plan."""

from __future__ import annotations

import abc

import onnx_ir as ir

from edgewise.quantize.plan import Plan


class DecidingPass(ir.passes.PassBase):
    """Side effect only: reads the graph, changes the plan, leaves the graph as it is."""

    in_place = True
    changes_input = False

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Decide; the model is not modified."""
        self.decide(model.graph)
        return ir.passes.PassResult(model, modified=False)

    @abc.abstractmethod
    def decide(self, graph: ir.Graph) -> None:
        """Write decisions about the main graph into the plan."""
