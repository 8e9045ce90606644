"""Which layers compute on integers."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.layers import WEIGHTED, Layer, constant_of, describe
from edgewise.quantize.movement import moves
from edgewise.quantize.passes.deciding import DecidingPass
from edgewise.quantize.passes.quantize_at_run import at_run_refusal
from edgewise.quantize.plan import Plan

ALREADY = "quantized in the model that came in; its scales are kept"


class SelectLayers(DecidingPass):
    """Let the activations of Conv, ConvTranspose, Gemm and MatMul be read as integers, where weights and spec allow.

    Before::

        x ──► Conv(w, b) ──► y

    After (decided, not yet written)::

        x ══► Conv(w, b) ──► y        ══ read as integers

    A layer stays in float, with the reason in the plan, when the spec or the user says so, when its weights are no
    constant of finite float32, or when it multiplies probabilities and the grid is symmetric. A layer that reads a
    DequantizeLinear is quantized already and left alone.
    """

    def __init__(self, plan: Plan, keep_float: Sequence[str] = ()) -> None:
        super().__init__(plan)
        self._keep_float = list(dict.fromkeys(keep_float))

    def decide(self, graph: ir.Graph) -> None:
        """Fill ``plan.layers``, ``plan.uses``, ``plan.already`` and ``plan.refused``.

        Raises:
            QuantizeError: ``keep_float`` has a name that no node bears.
        """
        self._check_names(graph)
        for node in graph:
            if node.name in self._keep_float:
                self.plan.refused[node] = "asked for"
            if node.op_type not in WEIGHTED or node.domain:
                continue
            layer = describe(node)
            if _is_quantized(node):
                self.plan.already[node] = ALREADY
            elif reason := self.plan.refused.get(node) or self._refusal(layer):
                self.plan.refused[node] = reason
            else:
                self.plan.layers[node] = layer
                for index in () if self.plan.spec.weights_only else layer.activations:
                    self.plan.round_use(node, index)

    def _check_names(self, graph: ir.Graph) -> None:
        known = [str(node.name) for node in graph]
        for name in self._keep_float:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0)
                raise QuantizeError(
                    "cannot keep a layer in float",
                    where=f"keep_float {name!r}",
                    found="no node of that name",
                    expected=f"a node of the graph, such as {near[0]!r}",
                    fix="List the names with `edgewise inspect`",
                )

    def _refusal(self, layer: Layer) -> str:
        node, spec = layer.node, self.plan.spec
        if node.op_type in spec.float_ops:
            return spec.float_ops[node.op_type]
        if node.op_type not in spec.op_types:
            return "the target has no integer form of it"
        if any(_dtype_of(node.inputs[index]) not in (None, ir.DataType.FLOAT) for index in layer.activations):
            return "it does not compute in float32"
        if layer.weight is not None:
            reason = _weight_refusal(layer.node.inputs[layer.weight])
            return reason or (at_run_refusal(layer, spec.weight_group) if spec.dynamic else "")
        if node.op_type != "MatMul":
            return "its weights are computed in the graph, not constant"
        return self._attention_refusal(node)

    def _attention_refusal(self, node: ir.Node) -> str:
        if self.plan.spec.dynamic:
            return "it multiplies two activations, which stay in float where ranges are found at run time"
        if self.plan.spec.weights_only:
            return "it has no weights, and only weights are quantized"
        if not self.plan.spec.attention:
            return "it multiplies two activations, which the target keeps in float"
        spec = self.plan.spec
        if spec.activation_symmetric and not spec.one_sided and any(_is_probability(value) for value in node.inputs):
            return "it multiplies probabilities: of a symmetric grid only half of the steps lie between 0 and 1"
        return ""


def _is_quantized(node: ir.Node) -> bool:
    makers = [value.producer() for value in node.inputs if value is not None]
    return any(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers)


def _dtype_of(value: ir.Value | None) -> ir.DataType | None:
    return value.dtype if value is not None else None


def _is_probability(value: ir.Value | None) -> bool:
    """Whether a Softmax made the value, directly or through operators that only move values."""
    while value is not None and (maker := value.producer()) is not None:
        if maker.op_type == "Softmax":
            return True
        if not moves(maker, ()):
            return False
        value = maker.inputs[0]
    return False


def _weight_refusal(value: ir.Value | None) -> str:
    weights = constant_of(value)
    if weights is None:
        return "its weights are computed in the graph, not constant"
    if weights.dtype != np.float32:
        return f"its weights are {weights.dtype}, not float32"
    if not np.all(np.isfinite(weights)):
        return "its weights hold NaN or infinity"
    if weights.size == 0:
        return "its weights are empty"
    return ""
