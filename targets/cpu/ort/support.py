"""Which nodes ONNX Runtime's CPU provider takes, asked of ONNX Runtime itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edgewise.runtime.errors import RunError
from edgewise.runtime.extras import needs
from edgewise.runtime.onnx_file import to_bytes
from edgewise.runtime.ort_session import open_session
from edgewise.targets.base import NodeSupport
from edgewise.targets.errors import TargetError
from edgewise.targets.nodes import node_names, op_name

if TYPE_CHECKING:
    import onnx_ir as ir

_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
# Kernels may want small inputs (axes, scales, zero points) as constants; large ones are weights and only cost memory.
_CONSTANT_LIMIT_BYTES = 1 << 16


def node_support(model: ir.Model) -> list[NodeSupport]:
    """Open a session on the whole graph; when ONNX Runtime refuses it, one per node to find out which it refuses.

    Raises:
        TargetError: the graph is refused although each of its nodes is taken (a graph that is not valid).
    """
    names = node_names(model.graph)
    refused = whole_graph_refusal(model)
    if not refused:
        return [NodeSupport(name, op_name(node), True) for name, node in zip(names, model.graph, strict=True)]
    reasons = _probe_nodes(model)
    if not any(reasons):
        raise graph_refused(model, refused)
    return [
        NodeSupport(name, op_name(node), not reason, reason)
        for name, node, reason in zip(names, model.graph, reasons, strict=True)
    ]


def whole_graph_refusal(model: ir.Model) -> str:
    """What ONNX Runtime says against the graph; empty when it takes it."""
    return _refusal(to_bytes(model, "graph"))


def graph_refused(model: ir.Model, reason: str) -> TargetError:
    """The error for a graph that ONNX Runtime refuses as a whole."""
    return TargetError(
        "ONNX Runtime refuses the graph",
        where=f"graph {model.graph.name!r}",
        found=reason,
        expected="a valid ONNX graph",
        fix="Export the network again; `edgewise inspect` shows the graph",
    )


def _refusal(data: bytes) -> str:
    try:
        open_session(data, where="graph", threads=1, optimize=False)
    except RunError as error:
        return _PREFIX.sub("", error.found)
    return ""


def _probe_nodes(model: ir.Model) -> list[str]:
    """Per node, what ONNX Runtime says against a graph of that node alone; empty when it takes it."""
    with needs("graph"):
        import onnx
    proto = onnx.ModelProto.FromString(to_bytes(model, "graph"))
    # Of an invalid node ONNX Runtime will say so itself; the types that the graph states remain.
    with suppress(onnx.shape_inference.InferenceError):
        proto = onnx.shape_inference.infer_shapes(proto)
    types = {value.name: value for value in [*proto.graph.input, *proto.graph.value_info, *proto.graph.output]}
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    return [_probe(node, proto, types, constants) for node in proto.graph.node]


def _probe(node: Any, proto: Any, types: dict[str, Any], constants: dict[str, Any]) -> str:
    """Try every type for the inputs whose type is not known, because something refused makes them."""
    with needs("graph"):
        import onnx
    tensor = onnx.TensorProto
    reason = ""
    for fallback in (tensor.FLOAT, tensor.INT64, tensor.BOOL, tensor.UINT8, tensor.INT8, tensor.INT32):
        single, unknown = _single_node_model(node, proto, types, constants, fallback)
        refused = _refusal(single.SerializeToString())
        if not refused:
            return ""
        reason = reason or refused
        if not unknown:
            break
    return reason


def _single_node_model(
    node: Any, proto: Any, types: dict[str, Any], constants: dict[str, Any], fallback: int
) -> tuple[Any, bool]:
    with needs("graph"):
        import onnx
    graph = onnx.GraphProto(name="node")
    graph.node.append(node)
    unknown = False
    for name in dict.fromkeys(_reads(node)):
        if name in constants and constants[name].ByteSize() <= _CONSTANT_LIMIT_BYTES:
            graph.initializer.append(constants[name])
        elif name in constants:
            held = constants[name]
            graph.input.append(onnx.helper.make_tensor_value_info(name, held.data_type, held.dims))
        elif name in types and types[name].type.WhichOneof("value"):
            graph.input.append(types[name])
        else:
            unknown = True
            graph.input.append(onnx.helper.make_tensor_value_info(name, fallback, None))
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name)
    single = onnx.ModelProto(ir_version=proto.ir_version, graph=graph, functions=proto.functions)
    single.opset_import.extend(proto.opset_import)
    return single, unknown


def _reads(node: Any) -> Iterator[str]:
    """Names of the tensors that a node reads, those that its bodies capture included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for body in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            made = {value.name for value in [*body.input, *body.initializer]}
            made |= {name for inner in body.node for name in inner.output}
            yield from (name for inner in body.node for name in _reads(inner) if name not in made)
            yield from (value.name for value in body.output if value.name not in made)
