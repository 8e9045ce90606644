"""Operators that ONNX itself defines by others: where the table has no row, the definition takes their place."""

from __future__ import annotations

import onnx
import onnx.inliner
import onnx_ir as ir

from edgewise.targets.coreml.table import table


def is_defined(domain: str, op: str, opset: int) -> bool:
    """Whether a node of that operator is replaced by its definition: ONNX has one, and the table has no row."""
    if (domain, op) in table():
        return False
    try:
        schema = onnx.defs.get_schema(op, opset, domain)
    except onnx.defs.SchemaError:
        return False
    return any(getattr(schema, kind) for kind in ("has_function", "has_context_dependent_function"))


def expand(model: ir.Model) -> ir.Model:
    """The model with such nodes (``Attention``, ``RotaryEmbedding``, ``AffineGrid``, …) written out; itself when it has none."""
    opset = model.opset_imports.get("", 1)
    found = {(node.domain, node.op_type) for node in model.graph if is_defined(node.domain, node.op_type, opset)}
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
