"""Which layers compute on integers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from edgewise.quantize.layers import WEIGHTED, Layer, constant_of, describe
from edgewise.quantize.passes.deciding import DecidingPass
from edgewise.quantize.plan import Plan


class SelectLayers(DecidingPass):
    """Let the activations of Conv, ConvTranspose, Gemm and MatMul be read as integers, where weights and spec allow.

    Before::

        x ──► Conv(w, b) ──► y

    After (decided, not yet written)::

        x ══► Conv(w, b) ──► y        ══ read as integers

    A layer stays in float, with the reason in the plan, when the spec or the user says so, when its weights are no
    float32 constant, or when it is quantized already (its scales are kept).
    """

    def __init__(self, plan: Plan, keep_float: Sequence[str] = ()) -> None:
        super().__init__(plan)
        self._keep_float = frozenset(keep_float)

    def decide(self, graph: ir.Graph) -> None:
        """Fill ``plan.layers``, ``plan.uses`` and ``plan.kept_float``."""
        for node in graph:
            if node.op_type not in WEIGHTED or node.domain:
                continue
            layer = describe(node)
            reason = self._refusal(layer)
            if reason:
                self.plan.keep_float(node, reason)
                continue
            self.plan.layers[node] = layer
            for index in layer.activations:
                self.plan.round_use(node, index)

    def _refusal(self, layer: Layer) -> str:
        node, spec = layer.node, self.plan.spec
        if node.name in self._keep_float:
            return "asked for"
        if node.op_type in spec.float_ops:
            return spec.float_ops[node.op_type]
        if node.op_type not in spec.op_types:
            return "the target has no integer form of it"
        if layer.weight is None:
            return "" if spec.attention else "a MatMul of two activations, which the target keeps in float"
        return _weight_refusal(layer)


def _weight_refusal(layer: Layer) -> str:
    value = layer.node.inputs[layer.weight or 0]
    weights = constant_of(value)
    if weights is None:
        return "its weights are computed in the graph, not constant"
    if weights.dtype != np.float32:
        return f"its weights are {weights.dtype}, not float32"
    if not np.all(np.isfinite(weights)):
        return "its weights hold NaN or infinity"
    return ""
