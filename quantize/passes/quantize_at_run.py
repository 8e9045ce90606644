"""Activations rounded at run time, each row by ranges of its own."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgewise.quantize.layers import Layer
from edgewise.quantize.passes.writing import Writer
from edgewise.quantize.plan import Plan

_STEPS = 255.0  # of uint8
_LEAST_SCALE = 1e-30  # of a group of zeros; any would do, but it must not be 0


class QuantizeAtRun(ir.passes.InPlacePass):
    """Let linear layers read rows that are rounded to 8 bits by the range of each group of inputs, found from the row itself.

    Before::

        x: f32[N,K] ──► MatMul(w)

    After (groups of 32; opset 21)::

        x ─► Reshape [N,K/32,32] ─┬─► ReduceMax, ReduceMin ─► scale f32[N,K/32,1], zero point u8[N,K/32,1]
                                  └─► Q(scale, zero point, block_size 32) ─► DQ ─► Reshape [N,K] ─► MatMul(w)

    ``scale`` is (max − min) / 255 of the group widened to hold zero, so that no sample has to foretell it, and a wide channel
    costs the others of its group alone. The second Reshape keeps ONNX Runtime from merging DQ and MatMul into its operator for one
    scale, which then fails. Ranges of each token: Z. Yao et al., "ZeroQuant" (NeurIPS 2022); of groups of inputs
    within it: as llama.cpp and ONNX Runtime's MatMulNBits multiply. Layers that read the same tensor share one rounding.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Insert the rounding before every layer of the plan, where the spec asks for it."""
        writer = Writer(model.graph)
        made: dict[tuple[ir.Value, int], ir.Value] = {}
        for layer in self._plan.layers.values() if self._plan.spec.dynamic else ():
            value, index = layer.node.inputs[layer.activations[0]], layer.activations[0]
            size = inputs_of(layer)
            group = self._plan.spec.weight_group or size
            if value is None:
                continue
            if (value, group) not in made:
                made[value, group] = _rounded(writer, layer.node, value, size, group)
            layer.node.replace_input_with(index, made[value, group])
        return ir.passes.PassResult(model, modified=bool(made))


def at_run_refusal(layer: Layer, group: int) -> str:
    """Why a layer cannot read rows rounded at run time; empty when it can."""
    value, node = layer.node.inputs[layer.activations[0]], layer.node
    if layer.weight != 1 or _weight_rank(layer) != 2 or (node.op_type == "Gemm" and _reads_columns(node)):
        return "its weights are no matrix that rows are multiplied by"
    if value is None or value.shape is None or len(value.shape) < 2:
        return "what it reads has an unknown number of axes, or one"
    size = inputs_of(layer)
    if size < 1 or (group and size % group):
        return f"its {size} inputs are no multiple of the {group} that share a range"
    return ""


def inputs_of(layer: Layer) -> int:
    """How many inputs each row has, by the weights."""
    weights = layer.node.inputs[layer.weight or 0]
    size = weights.shape[1 - (layer.channel_axis or 0)] if weights is not None and weights.shape is not None else 0
    return size if isinstance(size, int) else 0


def _weight_rank(layer: Layer) -> int:
    weights = layer.node.inputs[layer.weight or 0]
    return len(weights.shape) if weights is not None and weights.shape is not None else 0


def _reads_columns(node: ir.Node) -> bool:
    return "transA" in node.attributes and node.attributes["transA"].as_int() != 0


def _rounded(writer: Writer, reader: ir.Node, value: ir.Value, size: int, group: int) -> ir.Value:
    """The value behind a Q/DQ pair whose parameters are computed."""
    rank = len(value.shape or ())
    name = str(value.name)
    nodes: list[ir.Node] = []

    def make(op: str, *inputs: ir.Value, dtype: ir.DataType = ir.DataType.FLOAT, **attributes: int) -> ir.Value:
        nodes.append(writer.node(op, list(inputs), attributes, dtype, None))
        return nodes[-1].outputs[0]

    def number(what: str, array: float | list[int]) -> ir.Value:
        kind = np.int64 if isinstance(array, list) else np.float32
        return writer.constant(f"{name}_{what}", np.array(array, dtype=kind))

    last = number("last_axis", [-1])
    grouped = make("Reshape", value, number("groups", [0] * (rank - 1) + [size // group, group]))
    zero = number("zero", 0.0)
    most = make("Max", make("ReduceMax", grouped, last, keepdims=1), zero)
    least = make("Min", make("ReduceMin", grouped, last, keepdims=1), zero)
    range_ = make("Div", make("Sub", most, least), number("steps", _STEPS))
    scale = make("Max", range_, number("least_scale", _LEAST_SCALE))
    rounded = make("Round", make("Neg", make("Div", least, scale)))
    point = make("Cast", rounded, dtype=ir.DataType.UINT8, to=int(ir.DataType.UINT8))
    nodes.append(writer.quantize(grouped, scale, point, axis=rank, group=group))
    nodes.append(writer.dequantize(nodes[-1].outputs[0], scale, point, axis=rank, group=group))
    rows = make("Reshape", nodes[-1].outputs[0], number("row", [0] * (rank - 1) + [size]))
    rows.shape = value.shape
    writer.graph.insert_before(_first_reader(reader, value), nodes)
    return rows


def _first_reader(reader: ir.Node, value: ir.Value) -> ir.Node:
    """The first node of the graph that reads the value: what is made for one layer lies before all of them."""
    readers = {use.node for use in value.uses()}
    graph = reader.graph
    return next((node for node in graph if node in readers), reader) if graph is not None else reader
