"""Which nodes TensorRT's parser takes, asked of the parser itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgewise.runtime.extras import needs
from edgewise.runtime.onnx_file import to_bytes
from edgewise.targets.base import NodeSupport
from edgewise.targets.errors import TargetError
from edgewise.targets.nodes import node_names, op_name
from edgewise.targets.tensorrt.prepare import normalize
from edgewise.targets.tensorrt.rewrites import nearest
from edgewise.targets.tensorrt.vendor import ParserRefusal, parse

if TYPE_CHECKING:
    import onnx_ir as ir

# The parser stops at the first node that it cannot import; each round cuts out what it named and asks again.
_ROUNDS = 32
_GRIDS = ("QuantizeLinear", "DequantizeLinear")
_COMPUTED = "a zero point that is computed; TensorRT quantizes symmetrically (quantize again with --target tensorrt)"
_NOT_EXAMINED = "not examined: it comes after a refused node, at which the parser stops"


def node_support(model: ir.Model) -> list[NodeSupport]:
    """One entry per node of the graph, in order. Nodes that vanish beforehand (constants, int32 biases) are taken.

    Raises:
        TargetError: the parser refuses the graph as a whole.
    """
    ready, _ = normalize(model)
    reasons = _refusals(ready) | _computed_grids(ready)
    return [
        NodeSupport(name, op_name(node), name not in reasons, _told(reasons.get(name, ""), node))
        for name, node in zip(node_names(model.graph), model.graph, strict=True)
    ]


def _told(reason: str, node: ir.Node) -> str:
    return reason + nearest(node.op_type) if reason and not node.domain and reason != _NOT_EXAMINED else reason


def _computed_grids(model: ir.Model) -> dict[str, str]:
    """Grids with a zero point that is known at run time only: the parser drops it without a word."""
    zeros = {node.name or "": node.inputs[2] for node in model.graph if node.op_type in _GRIDS and len(node.inputs) > 2}
    return {name: _COMPUTED for name, zero in zeros.items() if zero is not None and zero.const_value is None}


def _refusals(model: ir.Model) -> dict[str, str]:
    with needs("graph"):
        import onnx
    proto = onnx.ModelProto.FromString(to_bytes(model, "graph"))
    reasons: dict[str, str] = {}
    first = ""
    for _ in range(_ROUNDS):
        refusals = parse(proto.SerializeToString()).refusals
        if not refusals:
            return reasons
        _check_whole(refusals, model)
        refused = {refusal.index: refusal.reason for refusal in reversed(refusals)}
        reasons |= {proto.graph.node[index].name: reason for index, reason in refused.items()}
        first = proto.graph.node[min(refused)].name
        if not _cut(proto, set(refused)):
            break
    names = [node.name or "" for node in model.graph]
    return dict.fromkeys(names[names.index(first) :], _NOT_EXAMINED) | reasons


def _check_whole(refusals: list[ParserRefusal], model: ir.Model) -> None:
    whole = [refusal for refusal in refusals if refusal.index < 0]
    if whole:
        raise TargetError(
            "TensorRT's parser refuses the graph",
            where=f"graph {model.graph.name!r}",
            found=whole[0].reason,
            expected="a valid ONNX graph",
            fix="Export the network again; `edgewise inspect` shows the graph",
        )


def _cut(proto: Any, indices: set[int]) -> bool:
    """Take nodes out of the graph; what they made becomes an input. False when its type is not known."""
    graph = proto.graph
    types = {value.name: value for value in [*graph.value_info, *graph.output] if value.type.WhichOneof("value")}
    made = [name for index in indices for name in graph.node[index].output if name]
    if any(name not in types for name in made):
        return False
    for index in sorted(indices, reverse=True):
        del graph.node[index]
    graph.input.extend(types[name] for name in made)
    outputs = [value for value in graph.output if value.name not in made]
    del graph.output[:]
    graph.output.extend(outputs)
    return bool(graph.node)
