"""Which rule writes which operator out, and where: in place of its node."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from edgewise.targets.cpu.native.activations import PRIVATE
from edgewise.targets.cpu.native.value import Refusal
from edgewise.targets.cpu.native.written import (
    control,
    functions,
    indexing,
    places,
    products,
    quantized,
    recurrent,
    resampling,
    sampling,
)
from edgewise.targets.cpu.native.written.writer import Writer

Rule = Callable[[ir.Node, Writer], Sequence[ir.Value] | None]  # None: the node is lowered as it is

RULES: dict[str, Rule] = {
    **functions.RULES,
    **indexing.RULES,
    **places.RULES,
    **products.RULES,
    **quantized.RULES,
    **sampling.RULES,
    **resampling.RULES,
    **recurrent.RULES,
    **control.RULES,
}


def write_rules_out(model: ir.Model) -> bool:
    """Put others in the place of every node that has a rule; whether there were any. Shapes must have been inferred.

    Raises:
        Refusal: a rule does not take a node.
    """
    graph = model.graph
    found = 0
    for node in list(graph):
        if node.domain not in ("", "ai.onnx") or node.op_type not in RULES:
            continue
        node.version = model.opset_imports.get("")
        writer = Writer(node.name or node.op_type)
        try:
            made = RULES[node.op_type](node, writer)
        except Refusal as error:
            raise Refusal(str(error), node) from error
        if made is not None:
            _replace(graph, node, writer, list(made)[: len(node.outputs)])
            found += 1
    if found:
        model.opset_imports[PRIVATE] = 1
    return bool(found)


def _replace(graph: ir.Graph, node: ir.Node, writer: Writer, made: list[ir.Value]) -> None:
    for index, output in enumerate(node.outputs[: len(made)]):
        if made[index].producer() not in writer.nodes or output.is_graph_output():
            made[index] = writer("Identity", made[index])
        made[index].type, made[index].shape = output.type, output.shape
    kept = list(node.outputs[: len(made)])
    for output in node.outputs[len(made) :]:
        if output.uses() or output.is_graph_output():
            raise Refusal("an output that is not made", node)
    names = [output.name for output in kept]
    for output in kept:
        output.name = f"{output.name}.before"
    graph.insert_before(node, writer.nodes)
    for output, value, name in zip(kept, made, names, strict=True):
        ir.convenience.replace_all_uses_with(output, value, replace_graph_outputs=True)
        value.name = name
    graph.remove(node, safe=True)
