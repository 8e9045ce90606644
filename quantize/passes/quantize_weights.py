"""Weights in int8."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgewise.quantize.grid import weight_scales
from edgewise.quantize.layers import Layer, constant_of
from edgewise.quantize.passes.quantize_biases import least_weight_scales
from edgewise.quantize.passes.writing import Writer
from edgewise.quantize.plan import Plan
from edgewise.quantize.rounding import round_weights

_Key = tuple[ir.Value, int | None]
_Stored = tuple[ir.Value, ir.Value, ir.Value]


class QuantizeWeights(ir.passes.InPlacePass):
    """Store constant weights as int8, symmetric, with one scale per output channel where the spec asks for it.

    Before::

        w: f32[O,I,3,3] ──► Conv

    After::

        w_int8: i8[O,I,3,3] ─► DQ(scale f32[O], axis 0) ─► Conv

    Weights that several layers share are stored once for each axis along which their channels run. Scales are made larger
    where the bias would not fit int32 beside them.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace the weights of every layer of the plan."""
        writer = Writer(model.graph)
        for (value, axis), layers in self._by_weights().items():
            stored = self._store(writer, value, axis, layers)
            for layer in layers:
                dequantize = writer.dequantize(*stored, axis=axis if self._plan.spec.per_channel else None)
                model.graph.insert_before(layer.node, dequantize)
                layer.node.replace_input_with(layer.weight or 0, dequantize.outputs[0])
        return ir.passes.PassResult(model, modified=bool(self._plan.weight_scales))

    def _by_weights(self) -> dict[_Key, list[Layer]]:
        found: dict[_Key, list[Layer]] = {}
        for layer in self._plan.layers.values():
            value = None if layer.weight is None else layer.node.inputs[layer.weight]
            if value is not None:
                found.setdefault((value, layer.channel_axis), []).append(layer)
        return found

    def _store(self, writer: Writer, value: ir.Value, axis: int | None, layers: list[Layer]) -> _Stored:
        spec = self._plan.spec
        weights = np.asarray(constant_of(value), dtype=np.float32)
        bits = 7 if spec.reduce_range else 8
        scales = weight_scales(weights, axis if spec.per_channel else None, bits)
        for layer in layers if spec.quantize_bias else ():
            least = least_weight_scales(layer, float(self._plan.input_scale(layer)), scales.ndim == 1)
            scales = np.maximum(scales, least.astype(np.float32))
        self._plan.weight_scales.update({layer.node: scales for layer in layers})
        return (
            writer.constant(f"{value.name}_int8", round_weights(weights, scales, axis, bits)),
            writer.constant(f"{value.name}_scale", scales),
            writer.constant(f"{value.name}_zero_point", np.zeros(scales.shape, dtype=np.int8)),
        )
