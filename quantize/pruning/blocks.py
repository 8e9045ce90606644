"""Parts of a network that begin and end at a single tensor: residual blocks, attention, MLPs. Found, not declared."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgewise.quantize.layers import WEIGHTED, constant_of, describe
from edgewise.quantize.pruning.biases import bias_of


@dataclass(frozen=True)
class Part:
    """Consecutive nodes of a graph.

    Attributes:
        nodes: in the order of the graph.
        inputs: tensors that they read and do not make; no constants.
        output: the only tensor that what comes behind reads of what layers made; for the last part, a graph output.
    """

    nodes: list[ir.Node]
    inputs: list[ir.Value]
    output: ir.Value


def parts_of(graph: ir.Graph) -> list[Part]:
    """Cut a graph wherever one tensor alone carries on what its layers have computed.

    ::

        stem ─┬─► conv ─► conv ─► Add ─│─┬─► conv ─► conv ─► Add ─│─► …
              └──────────────────►┘    │ └──────────────────►┘    │

    Attention masks and the like, which no layer made, are inputs of parts. Parts without weights are not given.
    """
    nodes = list(graph)
    last = _last_use(graph, nodes)
    computed = _computed(nodes)
    live: set[ir.Value] = set()
    found: list[Part] = []
    part: list[ir.Node] = []
    for index, node in enumerate(nodes):
        if node.outputs[0] in computed:
            part.append(node)
            live.update(node.outputs)
        live = {value for value in live if last.get(value, -1) > index}
        ends = live & set(node.outputs)
        if part and live == ends and len(ends) == 1 and not _awaits_bias(node):
            if any(_has_weights(each) for each in part):
                found.append(Part(part, _reads(part), ends.pop()))
            part = []
    return found


def whole(graph: ir.Graph, output: ir.Value) -> Part:
    """Everything between the first layers and an output of the graph, as one part."""
    nodes = list(graph)
    computed = _computed(nodes)
    wanted, part = {output}, []
    for node in reversed(nodes):
        if node.outputs[0] in computed and any(value in wanted for value in node.outputs):
            part.append(node)
            wanted.update(value for value in node.inputs if value is not None)
    part.reverse()
    return Part(part, _reads(part), output)


def _computed(nodes: list[ir.Node]) -> set[ir.Value]:
    """What layers with weights make, and what is computed from it."""
    found: set[ir.Value] = set()
    for node in nodes:
        if _has_weights(node) or any(value in found for value in node.inputs):
            found.update(node.outputs)
    return found


def _last_use(graph: ir.Graph, nodes: list[ir.Node]) -> dict[ir.Value, int]:
    """The index of the last node that reads each value; beyond the end for outputs of the graph."""
    last = {value: index for index, node in enumerate(nodes) for value in node.inputs if value is not None}
    return last | {value: len(nodes) for value in graph.outputs}


def _has_weights(node: ir.Node) -> bool:
    return node.op_type in WEIGHTED and not node.domain and describe(node).weight is not None


def _awaits_bias(node: ir.Node) -> bool:
    """Whether the next node adds the bias of this product: the two belong together."""
    if node.op_type != "MatMul" or not _has_weights(node):
        return False
    array = constant_of(node.inputs[1])
    return array is not None and bias_of(describe(node), array.shape[-1]) is not None


def _reads(nodes: list[ir.Node]) -> list[ir.Value]:
    made = {value for node in nodes for value in node.outputs}
    read = dict.fromkeys(value for node in nodes for value in node.inputs if value is not None)
    return [value for value in read if value not in made and constant_of(value) is None]
