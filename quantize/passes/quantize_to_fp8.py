"""8-bit floating-point numbers in front of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.layers import WEIGHTED, Layer, constant_of, describe

_E4M3 = ir.DataType.FLOAT8E4M3FN
_LARGEST = 448.0
_SMALLEST_RANGE = float(np.finfo(np.float32).tiny) * 512  # below it a scale would not be a normal float32


class QuantizeToFp8(ir.passes.InPlacePass):
    """Round what layers with weights read, and the weights, to FP8 E4M3.

    Before::

        x: f32 ──► MatMul(w: f32)

    After::

        x ─► Q(scale f32) ─► f8 ─► DQ ─► MatMul ◄─ DQ(scale f32[O], axis 1) ◄─ w: f8[I,O]

    A scale puts the largest magnitude, of the samples or of the channel, on 448; zeros stay zeros. What has no constant
    weights stays in float. After P. Micikevicius et al., "FP8 Formats for Deep Learning" (2022). Needs opset 19.

    Args:
        ranges: the largest magnitude of what each layer reads, by the tensor's name.
        keep: names of layers that stay in float.
    """

    def __init__(self, ranges: Mapping[str, float], keep: Sequence[str] = ()) -> None:
        self._ranges, self._keep = ranges, frozenset(keep)
        self._rounded: dict[ir.Value, ir.Value] = {}
        self.layers: list[dict[str, Any]] = []
        self.kept: list[dict[str, str]] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Write the pairs; ``layers`` and ``kept`` are lines of the report."""
        for node in list(model.graph):
            if node.op_type not in WEIGHTED or node.domain:
                continue
            layer = describe(node)
            reason = refusal_of(layer, self._keep)
            row = {"name": str(node.name), "op": node.op_type, "precision": "float32", "weight_dtype": "float32"}
            if reason:
                self.kept.append({"node": str(node.name), "op": node.op_type, "reason": reason})
                self.layers.append(row | {"granularity": "none", "reason": reason})
                continue
            self._write(layer, model.graph)
            how = {"precision": "fp8", "weight_dtype": "float8e4m3fn", "granularity": "channel", "weight_bits": 8}
            self.layers.append(row | how | {"reason": ""})
        return ir.passes.PassResult(model, modified=bool(self._rounded))

    def _write(self, layer: Layer, graph: ir.Graph) -> None:
        node = layer.node
        index = layer.activations[0]
        value, weight = node.inputs[index], node.inputs[layer.weight or 0]
        if value is None or weight is None:
            raise ValueError(node.name)
        if value not in self._rounded:
            self._rounded[value] = self._pair(value, node, graph)
        node.replace_input_with(index, self._rounded[value])
        node.replace_input_with(layer.weight or 0, _stored(weight, layer.channel_axis or 0, node, graph))

    def _pair(self, value: ir.Value, before: ir.Node, graph: ir.Graph) -> ir.Value:
        name = str(value.name)
        scale = _constant(graph, f"{name}_fp8_scale", np.array(_scale(self._ranges[name]), np.float32))
        zero = _constant(graph, f"{name}_fp8_zero_point", np.zeros((), ml_dtypes.float8_e4m3fn))
        quantize = ir.node("QuantizeLinear", [value, scale, zero], name=f"{name}_to_fp8")
        dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], scale, zero], name=f"{name}_from_fp8")
        for node, dtype in ((quantize, _E4M3), (dequantize, ir.DataType.FLOAT)):
            made = node.outputs[0]
            made.name, made.type, made.shape = f"{node.name}_out", ir.TensorType(dtype), value.shape
            graph.insert_before(before, node)
        return dequantize.outputs[0]


def refusal_of(layer: Layer, keep: frozenset[str]) -> str:
    """Why a layer stays in float; empty when it does not."""
    if layer.node.name in keep:
        return "asked for"
    if layer.weight is None or layer.channel_axis is None:
        return "it multiplies two computed tensors, or weights of no single channel axis"
    array = constant_of(layer.node.inputs[layer.weight])
    if array is None or array.dtype != np.float32:
        return "its weights are not float32"
    return "" if np.all(np.isfinite(array)) else "its weights hold NaN or infinity"


def _scale(largest: float) -> float:
    return largest / _LARGEST if largest > _SMALLEST_RANGE else 1.0


def _stored(weight: ir.Value, axis: int, before: ir.Node, graph: ir.Graph) -> ir.Value:
    array = np.asarray(constant_of(weight), np.float32)
    rows = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
    scales = np.array([_scale(float(each)) for each in np.abs(rows).max(axis=1, initial=0)], np.float32)
    steps = array / np.expand_dims(scales, [place for place in range(array.ndim) if place != axis])
    name = f"{weight.name}_{before.name}_fp8"
    values = [
        _constant(graph, name, np.clip(steps, -_LARGEST, _LARGEST).astype(ml_dtypes.float8_e4m3fn)),
        _constant(graph, f"{name}_scale", scales),
        _constant(graph, f"{name}_zero_point", np.zeros(scales.shape, ml_dtypes.float8_e4m3fn)),
    ]
    node = ir.node("DequantizeLinear", values, {"axis": axis}, name=f"{name}_dequantize")
    made = node.outputs[0]
    made.name, made.type, made.shape = f"{name}_out", ir.TensorType(ir.DataType.FLOAT), weight.shape
    graph.insert_before(before, node)
    return made


def _constant(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value
