"""Names that a reader can find in the network's own code, the same in every run."""

from __future__ import annotations

import ast

import onnx_ir as ir

from edgewise.exporter.clean.base import GraphPass, is_op

SCOPES = "pkg.torch.onnx.name_scopes"
ORIGIN = "edgewise.origin"  # in a value's meta (not written to files): its name before renaming


class NameByScope(GraphPass):
    """Name nodes, intermediate values and constants after the modules they come from.

    Before::

        node_MatMul_37 (in blocks.0.attn.qkv): val_38 ── MatMul ── val_39

    After::

        blocks.0.attn.qkv/MatMul: blocks.0.attn.qkv.weight ── MatMul ── blocks.0.attn.qkv/MatMul_out

    Inputs, outputs and parameters keep their names. Nodes without a scope keep theirs, or get ``Op_N`` when they have none. A value's
    old name stays in ``value.meta`` for the search for the first node that diverges.
    """

    def rewrite(self, graph: ir.Graph, opset: int) -> int:
        """Rename in a graph."""
        taken = {str(value.name) for value in [*graph.inputs, *graph.outputs]}
        taken |= {name for name in graph.initializers if not _is_made_up(name)}
        for body in graph.subgraphs():
            taken |= {str(value.name) for node in body for value in node.outputs} | set(body.initializers)
            taken |= {str(value.name) for value in body.inputs}
        count = _name_constants(graph, taken)
        for node in graph:
            count += _name_node(node, taken)
        return count


def scope_of(node: ir.Node) -> str:
    """The path of the module that a node comes from, such as ``blocks.0.attn.qkv``; empty when it has none."""
    text = node.metadata_props.get(SCOPES, "")
    if not text:
        return ""
    scopes = [scope for scope in ast.literal_eval(text)[:-1] if scope]
    return str(scopes[-1]) if scopes else ""


def _name_node(node: ir.Node, taken: set[str]) -> int:
    scope = scope_of(node)
    traced = SCOPES in node.metadata_props
    wanted = f"{scope}/{node.op_type}" if scope else node.op_type
    name = node.name if node.name and not traced else wanted
    free = _free(str(name), taken)
    taken.add(free)
    changed = node.name != free
    node.name = free
    for place, value in enumerate(node.outputs):
        if value.is_graph_output() or value.name == "":
            continue
        value.meta.setdefault(ORIGIN, value.name)
        if traced or not value.name:
            value.name = f"{free}_out" + (f"_{place}" if place else "")
    return int(changed)


def _name_constants(graph: ir.Graph, taken: set[str]) -> int:
    """Constants that folding made are named after the module that uses them."""
    count = 0
    for name, value in list(graph.initializers.items()):
        uses = list(value.uses())
        if not _is_made_up(name) or not uses or value.is_graph_output():
            continue
        node, place = uses[0]
        scope = scope_of(node)
        kind = "constant"
        if is_op(node, "Conv", "ConvTranspose", "Gemm", "MatMul") and place == 1:
            kind = "weight"
        free = _free(f"{scope}.{kind}" if scope else kind, taken)
        taken.add(free)
        value.meta.setdefault(ORIGIN, name)
        value.name = free
        count += 1
    return count


def _is_made_up(name: str) -> bool:
    """A name that PyTorch's exporter or a folding pass numbered through."""
    return name.startswith(("val_", "index_", "_val_")) or name.endswith(("_shape", "_part"))


def _free(name: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    count = 1
    while f"{name}_{count}" in taken:
        count += 1
    return f"{name}_{count}"
