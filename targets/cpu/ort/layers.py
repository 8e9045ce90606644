"""What an optimised ONNX Runtime model really computes: per node the precision, and the share of the work in integers."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from edgewise.runtime.extras import needs
from edgewise.runtime.ort_session import open_session

Shapes = dict[str, tuple[int, ...]]

# Operators of ONNX and of ONNX Runtime's own domain that multiply integers, beside all that begin with QLinear.
_INTEGER_OPS = {"ConvInteger", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QAttention", "QGemm"}
_CONVERSIONS = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
# Where the first factor and the weights are.
_CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "NhwcFusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}
_PRODUCTS = {
    "MatMul", "FusedMatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul",
    "Gemm", "FusedGemm", "QGemm",
}  # fmt: skip
_NAMED_AT_MOST = 8


@dataclass(frozen=True)
class OrtLayer:
    """A node of the optimised graph; ``macs`` with every dynamic dim set to 1, None for operators that are not counted."""

    name: str
    op: str
    precision: str
    macs: int | None


def read_layers(proto: Any) -> list[OrtLayer]:
    """One entry per node, with dtypes and shapes as ONNX Runtime infers them for its own operators too."""
    dtypes, shapes = _tensors(proto)
    names = _names(proto.graph.node)
    return [
        OrtLayer(name, _op(node), _precision(node, dtypes), _macs(node, shapes))
        for name, node in zip(names, proto.graph.node, strict=True)
    ]


def integer_notes(proto: Any, layers: list[OrtLayer]) -> list[str]:
    """For a quantized graph: the share of multiply-accumulates in int8, and what of them stayed in float."""
    if not any(layer.precision == "int8" or layer.op in _CONVERSIONS for layer in layers):
        return []
    counted = [layer for layer in layers if layer.macs is not None]
    total = sum(layer.macs or 0 for layer in counted)
    integer = sum(layer.macs or 0 for layer in counted if layer.precision == "int8")
    if not total:
        return ["The graph has Q/DQ nodes, but no convolution or matrix product."]
    floats = sorted((layer for layer in counted if layer.precision != "int8"), key=lambda layer: -(layer.macs or 0))
    # Rounded down: 100 % is said only of a graph without a float one.
    note = f"{1000 * integer // total / 10:g} % of the multiply-accumulates run in int8"
    if floats:
        named = ", ".join(f"{layer.name} ({layer.op})" for layer in floats[:_NAMED_AT_MOST])
        more = f" and {len(floats) - _NAMED_AT_MOST} more" if len(floats) > _NAMED_AT_MOST else ""
        note += f"; in float: {named}{more}"
    return [note + "."]


def _op(node: Any) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else str(node.op_type)


def _names(nodes: Any) -> list[str]:
    """Fused nodes may have no name; what they make always has one."""
    return [node.name or next((name for name in node.output if name), node.op_type) for node in nodes]


def _precision(node: Any, dtypes: dict[str, str]) -> str:
    if node.op_type.startswith("QLinear") or node.op_type in _INTEGER_OPS:
        return "int8"
    known = (dtypes[name] for name in [*node.output, *node.input] if name in dtypes)
    return next(known, "unknown")


def _macs(node: Any, shapes: Shapes) -> int | None:
    out = shapes.get(node.output[0])
    if node.op_type in _CONVOLUTIONS:
        weights = shapes.get(node.input[_CONVOLUTIONS[node.op_type]])
        return None if out is None or weights is None else prod(out) * prod(weights[1:])
    if node.op_type == "ConvTranspose":
        given, weights = shapes.get(node.input[0]), shapes.get(node.input[1])
        return None if given is None or weights is None else prod(given) * prod(weights[1:])
    if node.op_type in _PRODUCTS:
        left = shapes.get(node.input[0])
        return None if out is None or not left else prod(out) * left[-2 if _flag(node, "transA") else -1]
    return None


def _flag(node: Any, name: str) -> bool:
    return any(attribute.name == name and attribute.i for attribute in node.attribute)


def _tensors(proto: Any) -> tuple[dict[str, str], Shapes]:
    """Dtype and shape of every tensor: made an output each, in a copy that is opened and never run."""
    with needs("graph"):
        import onnx
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    del copy.graph.output[:]
    made = dict.fromkeys(name for node in copy.graph.node for name in node.output if name)
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    session = open_session(copy.SerializeToString(), where="the optimised graph", threads=1, optimize=False)
    dtypes, shapes = {}, {}
    for value in [*session.get_inputs(), *session.get_outputs()]:
        if value.type.startswith("tensor("):
            dtypes[value.name] = _DTYPES.get(value.type[7:-1], value.type[7:-1])
            if value.shape is not None:
                shapes[value.name] = tuple(dim if isinstance(dim, int) else 1 for dim in value.shape)
    for tensor in copy.graph.initializer:
        dtypes[tensor.name] = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name)
        shapes[tensor.name] = tuple(tensor.dims)
    return dtypes, shapes


_DTYPES = {"float": "float32", "double": "float64"}
