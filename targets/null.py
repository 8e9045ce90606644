"""The target that computes nothing: it writes down the graph. The simplest example of a target, and handy in tests."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from edgewise.quantize.schemes import with_scheme
from edgewise.quantize.spec import QuantSpec
from edgewise.runtime.bundle import Bundle
from edgewise.runtime.extras import needs
from edgewise.targets.base import BuildRequest, BuildResult, Executor, NodeSupport
from edgewise.targets.devices import DeviceProfile
from edgewise.targets.nodes import bodies, dtype_name, node_names, op_name, tensor_spec
from edgewise.targets.options import Option, read_options
from edgewise.targets.refusals import refuse_unsupported, unknown_scheme

if TYPE_CHECKING:
    import onnx_ir as ir

FILE = "graph.json"


class NullTarget:
    """Takes every operator that ONNX defines, and model-local functions."""

    name = "null"
    summary = "writes down the graph and computes nothing"
    default_device = "x86-64-v3"
    options: Mapping[str, Option] = MappingProxyType({})
    min_opset = 7
    schemes: tuple[str, ...] = (
        "int8", "w8a8", "w4a8", "w8a16", "w4a16", "w4a4", "w8", "w4", "w3", "w8g32", "w4g32", "w4g64", "w4g128", "w3g32",
        "w8d8", "w8d8g16", "w8d8g32", "fp16", "bf16", "fp8",
    )  # fmt: skip

    def support(self, model: ir.Model, device: DeviceProfile) -> list[NodeSupport]:
        """Refuses what ONNX has no schema for at the model's opset."""
        refusals = [_refusal(node, model) for node in model.graph]
        return [
            NodeSupport(name, op_name(node), not reason, reason)
            for node, name, reason in zip(model.graph, node_names(model.graph), refusals, strict=True)
        ]

    def quantization(self, scheme: str, device: DeviceProfile) -> QuantSpec:
        """The general form: asymmetric uint8 activations, symmetric int8 weights per channel."""
        if scheme not in self.schemes:
            raise unknown_scheme(self, scheme)
        return with_scheme(QuantSpec(), scheme, stores_int4=True)

    def build(self, request: BuildRequest) -> BuildResult:
        """Write ``graph.json``."""
        read_options(request.options, self.options, self.name)
        refuse_unsupported(self, request)
        description = describe(request.model)
        text = json.dumps(description, indent=1, ensure_ascii=False) + "\n"
        (request.folder / FILE).write_text(text, encoding="utf-8")
        layers = [
            {"name": node["name"], "op": node["op"], "precision": node["dtype"], "unit": "none"}
            for node in description["nodes"]
        ]
        notes = ["The null target holds a description of the graph, no engine."]
        return BuildResult("null", [FILE], {}, layers, {"description": FILE}, notes)

    def executor(self, bundle: Bundle) -> Executor | str:
        """There is never one."""
        return "the null target computes nothing"


def describe(model: ir.Model) -> dict[str, Any]:
    """The graph as JSON: inputs, outputs, operators with their counts, nodes in order, initializers with sizes in bytes."""
    graph = model.graph
    return {
        "schema_version": 1,
        "name": graph.name,
        "opsets": dict(sorted(model.opset_imports.items())),
        "inputs": [tensor_spec(value).to_json() for value in graph.inputs],
        "outputs": [tensor_spec(value).to_json() for value in graph.outputs],
        "operators": dict(sorted(Counter(op_name(node) for node in graph).items())),
        "nodes": [_describe_node(node, name) for node, name in zip(graph, node_names(graph), strict=True)],
        "initializers": [
            {**tensor_spec(value).to_json(), "bytes": value.const_value.nbytes if value.const_value else 0}
            for value in graph.initializers.values()
        ],
    }


def _describe_node(node: ir.Node, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "op": op_name(node),
        "dtype": dtype_name(node.outputs[0]) if node.outputs else "unknown",
        "inputs": [value.name if value else None for value in node.inputs],
        "outputs": [value.name for value in node.outputs],
        "attributes": sorted(node.attributes),
    }


def _refusal(node: ir.Node, model: ir.Model) -> str:
    with needs("graph"):
        import onnx
    if (node.domain, node.op_type, node.overload) not in model.functions:
        opset = model.opset_imports.get(node.domain)
        if opset is None:
            return f"the model imports no opset of the domain {node.domain!r}"
        domain = "" if node.domain == "ai.onnx" else node.domain
        if not onnx.defs.has(node.op_type, opset, domain):
            return f"ONNX has no operator {op_name(node)} at opset {opset}"
    inner = ((child, _refusal(child, model)) for body in bodies(node) for child in body)
    return next((f"{op_name(child)} inside it: {reason}" for child, reason in inner if reason), "")


TARGET = NullTarget()
