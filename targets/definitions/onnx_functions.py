"""Operators that ONNX itself defines by others: where a target has none of its own, the definition takes their place."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

_DOMAIN = "edgewise.definitions"  # of the functions, for as long as it takes to write them out
Owns = Callable[[ir.Node], bool]


class DefinitionError(Exception):
    """ONNX's definition of an operator cannot take its place; the text says why."""


def is_defined(domain: str, op: str, opset: int) -> bool:
    """Whether ONNX defines an operator by others, of this opset or an older one."""
    return bool(_versions(domain, op, opset))


def _versions(domain: str, op: str, opset: int) -> list[int]:
    try:
        schema: Any = onnx.defs.get_schema(op, opset, domain)
    except onnx.defs.SchemaError:
        return []
    listed = [*schema.function_opset_versions, *schema.context_dependent_function_opset_versions]
    return [version for version in listed if version <= opset]


def expand(model: ir.Model, own: Owns) -> ir.Model:
    """The model with such nodes (``Attention``, ``RotaryEmbedding``, ``AffineGrid``, …) written out; itself when it has none.

    Args:
        model: it is not changed.
        own: whether the target takes a node as it is; such a one stays.

    Raises:
        DefinitionError: there is a definition, but not for the model's opset or these inputs.
    """
    if not _found(model, own):
        return model
    copy = model.clone()
    while write_out(copy, own):
        pass
    return copy


def write_out(model: ir.Model, own: Owns) -> bool:
    """The same in place, one level deep (definitions use others that are defined); whether there were any.

    Raises:
        DefinitionError: as ``expand``.
    """
    found = _found(model, own)
    if not found:
        return False
    if any(value is not None and value.dtype is None for node in found for value in node.inputs):
        passes.ShapeInferencePass(check_type=False, strict_mode=False)(model)
    for index, node in enumerate(found):
        function = _definition(node, model.opset_imports, f"{node.op_type}_{index}")
        model.functions[function.identifier()] = function
        node.domain, node.op_type = function.domain, function.name
    model.opset_imports[_DOMAIN] = 1
    passes.InlinePass(criteria=lambda function: function.domain == _DOMAIN)(model)
    del model.opset_imports[_DOMAIN]
    return True


def _found(model: ir.Model, own: Owns) -> list[ir.Node]:
    return [
        node
        for node in model.graph
        if not own(node)
        and node.op_identifier() not in model.functions
        and is_defined(node.domain, node.op_type, model.opset_imports.get(node.domain, 1))
    ]


def _definition(node: ir.Node, opsets: dict[str, int], name: str) -> ir.Function:
    """What ONNX has for this node: its attributes and the types of its inputs decide."""
    opset = opsets.get(node.domain, 1)
    schema: Any = onnx.defs.get_schema(node.op_type, opset, node.domain)
    for key, attribute in schema.attributes.items():  # a definition may refer to one that the node does not give
        if key not in node.attributes and attribute.default_value.name:
            node.attributes[key] = ir.serde.deserialize_attribute(attribute.default_value)
    version, proto = max(_versions(node.domain, node.op_type, opset)), onnx.FunctionProto()
    try:
        if schema.has_function:
            proto.ParseFromString(schema.get_function_with_opset_version(version))
        else:
            text, types = ir.to_proto(node).SerializeToString(), [_type(value) for value in node.inputs]
            proto.ParseFromString(schema.get_context_dependent_function_with_opset_version(version, text, types))
    except RuntimeError as error:
        raise DefinitionError(f"ONNX does not define {node.op_type} for these inputs") from error
    if not proto.node:
        raise DefinitionError(f"ONNX does not define {node.op_type} for these inputs")
    proto.domain, proto.name = _DOMAIN, name
    _fit_outputs(proto, node)
    for key in [key for key, attribute in node.attributes.items() if attribute.type.name == "GRAPH"]:
        del node.attributes[key]  # it is in the definition already
    _adopt(proto, opsets)
    return ir.serde.deserialize_function(proto)


def _fit_outputs(function: onnx.FunctionProto, node: ir.Node) -> None:
    """As many as the node has; those that it leaves out get something, which nobody reads."""
    made = {output for inner in function.node for output in inner.output}
    del function.output[len(node.outputs) :]
    for output, value in zip(function.output, node.outputs, strict=False):
        value.name = value.name or f"{function.name}_{output}"
        if output not in made:
            function.node.append(onnx.helper.make_node("Constant", [], [output], value_float=0.0))


def _type(value: ir.Value | None) -> bytes:
    return b"" if value is None else bytes(ir.to_proto(value).type.SerializeToString())


def _adopt(function: onnx.FunctionProto, opsets: dict[str, int]) -> None:
    """Let the function's nodes be of the model's opsets; it gets those that it lacks.

    Raises:
        DefinitionError: one of its operators means something else there.
    """
    newest = onnx.defs.onnx_opset_version()
    own = {entry.domain: entry.version for entry in function.opset_import}
    for domain in {node.domain for node in function.node}:
        opsets.setdefault(domain, own.get(domain, newest))
    for node in function.node:
        here = opsets[node.domain]
        if not _alike(node.op_type, node.domain, own.get(node.domain, here), here):
            raise DefinitionError(f"ONNX defines it by {node.op_type} of another opset than {here}")
    del function.opset_import[:]
    function.opset_import.extend(onnx.helper.make_opsetid(domain, opsets[domain]) for domain in opsets)


@cache
def _alike(op: str, domain: str, one: int, other: int) -> bool:
    """Whether an operator has the same operands and attributes in two opsets (the newer may take more types, and have more attributes)."""
    old, new = (onnx.defs.get_schema(op, version, domain) for version in sorted((one, other)))
    defaults = [
        {name: attribute.default_value.SerializeToString() for name, attribute in schema.attributes.items()}
        for schema in (old, new)
    ]
    same = [given.name for given in old.inputs] == [given.name for given in new.inputs]
    return same and len(old.outputs) == len(new.outputs) and defaults[0].items() <= defaults[1].items()
