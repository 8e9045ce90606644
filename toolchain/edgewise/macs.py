"""Multiply-accumulates of a graph: what convolutions, matrix products and recurrent layers cost; elementwise work is not counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from edgewise.runtime.extras import needs

if TYPE_CHECKING:
    import onnx_ir as ir

Shape = tuple[int, ...]


@dataclass(frozen=True)
class MacCount:
    """``total`` multiply-accumulates; per node by name; the nodes whose shapes could not be found; what dynamic dims were set to."""

    total: int
    by_node: dict[str, int]
    unknown: list[str]
    assumed: dict[str, int]


def count_macs(model: ir.Model, dynamic: int = 1) -> MacCount:
    """Count with every symbolic dim set to ``dynamic``. The model is not changed; bodies of control flow count once."""
    fixed, assumed = _with_fixed_shapes(model, dynamic)
    counted = {node: _COUNTERS[node.op_type] for node in fixed.graph.all_nodes() if node.op_type in _COUNTERS}
    by_node: dict[str, int] = {}
    unknown: list[str] = []
    for index, (node, counter) in enumerate(counted.items()):
        name = node.name or f"{node.op_type}_{index}"
        try:
            by_node[name] = counter(node)
        except _UnknownShapeError:
            unknown.append(name)
    return MacCount(sum(by_node.values()), by_node, unknown, assumed)


class _UnknownShapeError(Exception):
    pass


def _with_fixed_shapes(model: ir.Model, dynamic: int) -> tuple[ir.Model, dict[str, int]]:
    with needs("graph"):
        import onnx_ir as ir
        from onnx_ir.passes.common import ShapeInferencePass
        from onnxscript.optimizer import fold_constants
    fixed = model.clone()
    assumed: dict[str, int] = {}
    for value in fixed.graph.inputs:
        if value.shape is not None:
            dims = [dim if isinstance(dim, int) else dynamic for dim in value.shape]
            assumed |= {str(dim): dynamic for dim in value.shape if not isinstance(dim, int)}
            value.shape = ir.Shape(dims)
    for node in fixed.graph.all_nodes():
        for value in node.outputs:
            value.shape = None  # it may speak of the dims that were just fixed
    for value in fixed.graph.outputs:
        value.shape = None
    # Folding resolves the shape arithmetic (Shape, Gather, Concat, Reshape) that inference alone does not see through.
    fold_constants(fixed, onnx_shape_inference=True)
    ShapeInferencePass(check_type=False, strict_mode=False)(fixed)
    return fixed, assumed


def _shape(value: ir.Value | None) -> Shape:
    if value is None or value.shape is None:
        raise _UnknownShapeError
    dims = tuple(dim for dim in value.shape if isinstance(dim, int))
    if len(dims) != len(value.shape):
        raise _UnknownShapeError
    return dims


def _conv(node: ir.Node, weight: int = 1) -> int:
    """Each output element is a dot product over the kernel and the input channels of its group."""
    return prod(_shape(node.outputs[0])) * prod(_shape(node.inputs[weight])[1:])


def _qlinear_conv(node: ir.Node) -> int:
    return _conv(node, weight=3)


def _conv_transpose(node: ir.Node) -> int:
    """Each input element is multiplied with the kernel of every output channel of its group."""
    return prod(_shape(node.inputs[0])) * prod(_shape(node.inputs[1])[1:])


def _matmul(node: ir.Node) -> int:
    """Each output element is a dot product over the last dim of the first factor."""
    return prod(_shape(node.outputs[0])) * _shape(node.inputs[0])[-2 if _int(node, "transA") else -1]


def _gemm(node: ir.Node) -> int:
    return prod(_shape(node.outputs[0])) * _shape(node.inputs[0])[0 if _int(node, "transA") else 1]


def _einsum(node: ir.Node) -> int:
    """The product of all the letters' sizes."""
    attribute = node.attributes.get("equation")
    equation = "".join(attribute.as_string().split()) if attribute else ""
    if "." in equation:
        raise _UnknownShapeError
    terms = equation.split("->")[0].split(",")
    sizes = {
        letter: size
        for term, value in zip(terms, node.inputs, strict=True)
        for letter, size in zip(term, _shape(value), strict=True)
    }
    return prod(sizes.values()) if len(terms) > 1 else 0


def _recurrent(node: ir.Node) -> int:
    """Per time step and sample: the input's and the state's matrices, of all gates and directions."""
    steps_and_batch = prod(_shape(node.inputs[0])[:2])
    return steps_and_batch * (prod(_shape(node.inputs[1])) + prod(_shape(node.inputs[2])))


def _attention(node: ir.Node) -> int:
    """Scores and their product with the values, for 4-D [batch, heads, sequence, size] inputs (ONNX Attention, opset 23)."""
    query, key, value = (_shape(node.inputs[i]) for i in range(3))
    if len(query) != 4:
        heads = _int(node, "q_num_heads")
        size = query[-1] // heads if heads else 0
        kv_heads = _int(node, "kv_num_heads") or heads
        value_size = value[-1] // kv_heads if kv_heads else 0
        return query[0] * heads * query[1] * key[1] * (size + value_size)
    return prod(query[:3]) * key[2] * (query[3] + value[3])


def _int(node: ir.Node, name: str) -> int:
    attribute: Any = node.attributes.get(name)
    return int(attribute.as_int()) if attribute else 0


_COUNTERS: dict[str, Callable[[ir.Node], int]] = {
    "Conv": _conv,
    "ConvInteger": _conv,
    "FusedConv": _conv,
    "QLinearConv": _qlinear_conv,
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "FusedMatMul": _matmul,
    "QLinearMatMul": _matmul,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Attention": _attention,
}
