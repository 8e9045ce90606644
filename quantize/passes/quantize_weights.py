"""Weights as integers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgewise.quantize.layers import Layer, constant_of
from edgewise.quantize.passes.quantize_biases import least_weight_scales
from edgewise.quantize.passes.writing import Writer
from edgewise.quantize.plan import Plan
from edgewise.quantize.stored import Coding, StoredWeights, coding_for

_Stored = tuple[ir.Value, ir.Value, ir.Value]
_Key = tuple[ir.Value, int | None, bool]


class QuantizeWeights(ir.passes.InPlacePass):
    """Store constant weights as symmetric integers, with a scale per output channel or per group as the spec asks for it.

    Before::

        w: f32[O,I,3,3] ──► Conv

    After::

        w_int8: i8[O,I,3,3] ─► DQ(scale f32[O], axis 0) ─► Conv
        w_int4: i4[I,O] ─► DQ(scale f32[I/32,O], axis 0, block_size 32) ─► MatMul

    Groups of consecutive inputs that share a scale (S. Shen et al., "Q-BERT", AAAI 2020) need a matrix whose inputs they
    divide; other layers get a scale per channel. Weights that several layers share are stored once for each axis along which their channels run. Scales are made larger
    where the bias would not fit int32 beside them.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace the weights of every layer of the plan."""
        writer = Writer(model.graph)
        for (value, _, _), layers in self._by_weights().items():
            coding, stored = self._store(writer, value, layers)
            for layer in layers:
                dequantize = writer.dequantize(*stored, axis=coding.axis, group=coding.group)
                model.graph.insert_before(layer.node, dequantize)
                layer.node.replace_input_with(layer.weight or 0, dequantize.outputs[0])
        return ir.passes.PassResult(model, modified=bool(self._plan.stored))

    def _by_weights(self) -> dict[_Key, list[Layer]]:
        found: dict[_Key, list[Layer]] = {}
        for layer in self._plan.layers.values():
            value = None if layer.weight is None else layer.node.inputs[layer.weight]
            if value is not None:
                found.setdefault((value, layer.channel_axis, layer.node in self._plan.wide), []).append(layer)
        return found

    def _store(self, writer: Writer, value: ir.Value, layers: list[Layer]) -> tuple[Coding, _Stored]:
        spec = self._plan.spec
        weights = np.asarray(constant_of(value), dtype=np.float32)
        if not np.any(weights):
            self._plan.notes.extend(
                f"{layer.node.op_type} {layer.node.name!r}: its weights are all zero" for layer in layers
            )
        coding = coding_for(spec, layers[0], weights.shape, layers[0].node in self._plan.wide)
        scales = coding.scales(weights)
        for layer in layers if spec.quantize_bias and not spec.weights_only else ():
            least = least_weight_scales(layer, float(self._plan.input_scale(layer)), scales.ndim == 1)
            scales = np.maximum(scales, least.astype(np.float32))
        integers = writer.tensor(
            f"{value.name}_{coding.dtype.name.lower()}", coding.tensor(coding.round(weights, scales))
        )
        zeros = coding.tensor(np.zeros(scales.shape, dtype=np.int8))
        scale = writer.constant(f"{value.name}_scale", scales)
        for layer in layers:
            self._plan.stored[layer.node] = StoredWeights(integers, scale, scales, coding, len(layers) == 1)
        return coding, (integers, scale, writer.tensor(f"{value.name}_zero_point", zeros))
