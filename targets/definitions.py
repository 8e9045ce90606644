"""Operators that ONNX itself defines by others: where a target has none of its own, the definition takes their place."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import onnx.inliner
import onnx_ir as ir


def is_defined(domain: str, op: str, opset: int) -> bool:
    """Whether ONNX defines an operator by others."""
    try:
        schema = onnx.defs.get_schema(op, opset, domain)
    except onnx.defs.SchemaError:
        return False
    return any(getattr(schema, kind) for kind in ("has_function", "has_context_dependent_function"))


def expand(model: ir.Model, own: Callable[[str, str], bool]) -> ir.Model:
    """The model with such nodes (``Attention``, ``RotaryEmbedding``, ``AffineGrid``, …) written out; itself when it has none.

    Args:
        model: it is not changed.
        own: whether the target has an operator (domain, name) of its own; such a one stays.
    """
    opset = model.opset_imports.get("", 1)
    names = {(node.domain, node.op_type) for node in model.graph}
    found = {(domain, op) for domain, op in names if not own(domain, op) and is_defined(domain, op, opset)}
    if not found:
        return model
    proto = ir.to_proto(model)
    for node in proto.graph.node:
        if (node.domain, node.op_type) in found:
            _with_defaults(node, opset)
    inlined = onnx.inliner.inline_selected_functions(proto, sorted(found), inline_schema_functions=True)
    return ir.from_proto(inlined)


def _with_defaults(node: onnx.NodeProto, opset: int) -> None:
    """Name every attribute: the inliner leaves out those that a definition refers to and the node does not give."""
    given = {attribute.name for attribute in node.attribute}
    for name, attribute in onnx.defs.get_schema(node.op_type, opset, node.domain).attributes.items():
        if name not in given and attribute.default_value.name:
            node.attribute.append(attribute.default_value)
