"""A graph in short floats on a processor: ONNX Runtime would compute it in float32 and round nowhere in between."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_SHORT, _FLOAT = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16), ir.DataType.FLOAT


class RoundExplicitly(ir.passes.InPlacePass):
    """Compute in float32, and round every tensor that is float16 or bfloat16 to it, overflow to infinity included.

    Before::

        x: f16 ─► Conv(w: f16) ─► y: f16

    After::

        x: f16 ─► Cast ─► Conv(w: f32) ─► Cast ─► y: f16

    ONNX Runtime's CPU provider has few float16 kernels; it casts around the other operators by itself, and then takes out
    the casts between two of them, so that a value beyond 65504 passes unnoticed. Casts that the graph holds stay.
    Only the main graph is treated, as in ``CastFloats``.
    """

    def __init__(self) -> None:
        self._float: dict[ir.Value, ir.Value] = {}

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Wrap every node but Cast that reads or makes a short float."""
        found = [
            node
            for node in model.graph
            if node.op_type != "Cast" and any(map(_is_short, [*node.inputs, *node.outputs]))
        ]
        for node in found:
            for index, value in enumerate(node.inputs):
                if value is not None and _is_short(value):
                    node.replace_input_with(index, self._as_float(value, node, model.graph))
        for node in found:
            for value in filter(_is_short, list(node.outputs)):
                self._round(value, node, model.graph)
        return ir.passes.PassResult(model, modified=bool(found))

    def _as_float(self, value: ir.Value, reader: ir.Node, graph: ir.Graph) -> ir.Value:
        if value not in self._float:
            if value.const_value is not None:
                name = f"{value.name}_f32"
                array = value.const_value.numpy().astype(np.float32)
                stored = ir.Value(
                    name=name, type=ir.TensorType(_FLOAT), shape=value.shape, const_value=ir.tensor(array, name=name)
                )
                graph.register_initializer(stored)
                self._float[value] = stored
            else:
                producer = value.producer()
                cast = _cast(value, _FLOAT, f"{value.name}_f32")
                if producer is None:
                    graph.insert_before(reader, cast)
                else:
                    graph.insert_after(producer, cast)
                self._float[value] = cast.outputs[0]
        return self._float[value]

    def _round(self, value: ir.Value, node: ir.Node, graph: ir.Graph) -> None:
        """The node makes float32 now; a cast makes the float16 tensor, under its old name."""
        name, dtype = value.name or "", value.dtype
        readers = list(value.uses())
        value.name, value.type = f"{name}_unrounded", ir.TensorType(_FLOAT)
        cast = _cast(value, dtype or _FLOAT, name)
        graph.insert_after(node, cast)
        for use in readers:
            use.node.replace_input_with(use.idx, cast.outputs[0])
        for index, output in enumerate(graph.outputs):
            if output is value:
                graph.outputs[index] = cast.outputs[0]


def _is_short(value: ir.Value | None) -> bool:
    return value is not None and value.dtype in _SHORT


def _cast(value: ir.Value, dtype: ir.DataType, name: str) -> ir.Node:
    node = ir.node("Cast", [value], attributes={"to": int(dtype)}, name=f"cast_{name}")
    made = node.outputs[0]
    made.name, made.type, made.shape = name, ir.TensorType(dtype), value.shape
    return node
