"""Which nodes of a graph Core ML takes, without building anything."""

from __future__ import annotations

import onnx_ir as ir

from edgewise.targets.base import NodeSupport
from edgewise.targets.coreml.expand import is_defined
from edgewise.targets.coreml.judge import judge
from edgewise.targets.coreml.node import NodeView
from edgewise.targets.coreml.options import parse_options
from edgewise.targets.coreml.prepare import nodes_of, opset_of, prepare
from edgewise.targets.devices import DeviceProfile
from edgewise.targets.nodes import bodies, node_names, op_name


def support(model: ir.Model, device: DeviceProfile) -> list[NodeSupport]:
    """One entry per node of the caller's main graph, in order."""
    options = parse_options({}, device)
    ready = prepare(model, options.ios)
    opset = opset_of(ready)
    reasons: dict[str, str] = {}
    for node in nodes_of(ready):
        refusal = judge(NodeView(node, opset, options.ios))
        if refusal is not None:
            reasons[node.name or ""] = refusal.sentence()
    return _by_caller(model, reasons)


def _by_caller(model: ir.Model, reasons: dict[str, str]) -> list[NodeSupport]:
    """Nodes are known again by their name; what came out of a function or a body is laid on the node that held it."""
    names = node_names(model.graph)
    own = set(names)
    inside = "; ".join(sorted({reason for name, reason in reasons.items() if name not in own}))
    entries = []
    for node, node_name in zip(model.graph, names, strict=True):
        called = node.op_identifier() in model.functions or is_defined(node.domain, node.op_type, opset_of(model))
        body = next((reason for name, reason in reasons.items() if name.startswith(f"{node_name}/")), "")
        reason = reasons.get(node_name, "") or (inside if called else "") or (body if any(bodies(node)) else "")
        entries.append(NodeSupport(node_name, op_name(node), not reason, reason))
    return entries
