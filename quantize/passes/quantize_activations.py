"""Activations onto integer grids."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgewise.quantize.passes.writing import Writer, before_readers
from edgewise.quantize.plan import Plan


class QuantizeActivations(ir.passes.InPlacePass):
    """Write the QuantizeLinear/DequantizeLinear pairs that the plan decided on.

    Before::

        x ──► Conv ──► Relu ──► y ──► MaxPool ──► …

    After::

        x ─► Q ─► DQ ─► Conv ─► Relu ─► y ─► Q ─► DQ ─► MaxPool ─► Q ─► DQ ─► …
                                             └────── one scale ─────┘

    Values of one group share one scale and zero point initializer. A graph output keeps its name and its dtype: it
    becomes the output of the last DequantizeLinear.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Insert the pairs."""
        graph, plan = model.graph, self._plan
        writer = Writer(graph)
        parameters: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
        for value in values_in_order(graph, plan):
            group = plan.group(value)
            if group not in parameters:
                parameters[group] = self._parameters(writer, value)
            _insert(writer, value, parameters[group], None if value in plan.whole else plan.uses[value])
        return ir.passes.PassResult(model, modified=bool(parameters))

    def _parameters(self, writer: Writer, value: ir.Value) -> tuple[ir.Value, ir.Value]:
        found = self._plan.scale(value)
        dtype = ir.DataType[self._plan.grid(value).dtype.upper()]
        zero_point = ir.tensor(np.array(found.zero_point).astype(dtype.numpy()), dtype=dtype)
        return (
            writer.constant(f"{value.name}_scale", np.array(found.scale, dtype=np.float32)),
            writer.tensor(f"{value.name}_zero_point", zero_point),
        )


def values_in_order(graph: ir.Graph, plan: Plan) -> list[ir.Value]:
    """The values that the plan rounds: inputs first, then in the order in which nodes make them."""
    made = [*graph.inputs, *(output for node in graph for output in node.outputs)]
    return [value for value in made if plan.is_rounded(value)]


def _insert(
    writer: Writer, value: ir.Value, parameters: tuple[ir.Value, ir.Value], uses: list[tuple[ir.Node, int]] | None
) -> None:
    """One pair on a value, for the given uses or (None) for all of the main graph, its outputs too."""
    graph = writer.graph
    chosen = uses if uses is not None else [(use.node, use.idx) for use in value.uses() if use.node.graph is graph]
    quantize = writer.quantize(value, *parameters)
    dequantize = writer.dequantize(quantize.outputs[0], *parameters, axis=None)
    dequantize.outputs[0].shape = value.shape
    before_readers(graph, value, [quantize, dequantize])
    for node, index in chosen:
        node.replace_input_with(index, dequantize.outputs[0])
    if uses is None and value.is_graph_output():
        _take_over_output(writer, value, dequantize.outputs[0])


def _take_over_output(writer: Writer, old: ir.Value, new: ir.Value) -> None:
    name = old.name
    old.name = writer.free_name(f"{name}_float")
    new.name, new.type, new.shape = name, old.type, old.shape
    for index, output in enumerate(writer.graph.outputs):
        if output is old:
            writer.graph.outputs[index] = new
