"""Nodes that depend on no computed value: their outputs are constants, and are computed by the compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgewise.targets.cpu.native.context import Context
from edgewise.targets.cpu.native.value import constant_value
from edgewise.targets.nodes import bodies

if TYPE_CHECKING:
    import onnx_ir as ir

_KEPT = {"QuantizeLinear", "DequantizeLinear"}  # these say how weights are stored
_RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
_MOST = 1 << 22  # elements
_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


def evaluated(node: ir.Node, ctx: Context) -> bool:
    """Bind the outputs of a node whose inputs are all constants, by ONNX's reference; whether that was possible.

    Most are folded before (``prepare.py``); those that are left depend on shapes, which only lowering knows.
    """
    if node.domain not in ("", "ai.onnx") or node.op_type in _KEPT | _RANDOM or any(True for _ in bodies(node)):
        return False
    given: list[np.ndarray | None] = []
    for one in node.inputs:
        if one is None:
            given.append(None)
            continue
        value = ctx.get(one) if ctx.known(one) else None
        if value is None or value.array is None or value.quant is not None or value.raw or value.coded is not None:
            return False
        given.append(value.array)
    made = None if _is_large(node) else _computed(node, given)
    if made is None:
        return False
    for index, array in enumerate(made):
        ctx.give(node, constant_value(np.asarray(array)), index)
    return True


def _is_large(node: ir.Node) -> bool:
    sizes = [value.shape.numpy() for value in node.outputs if value.shape is not None and value.shape.is_static()]
    return any(int(np.prod(size)) > _MOST for size in sizes)


def _computed(node: ir.Node, given: list[np.ndarray | None]) -> list[np.ndarray] | None:
    import onnx
    import onnx_ir as ir
    from onnx.reference import ReferenceEvaluator

    proto = ir.to_proto(node)
    feeds = {
        str(value.name): array
        for value, array in zip(node.inputs, given, strict=True)
        if value is not None and array is not None
    }
    inputs = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=value.name) for value in node.outputs]
    graph = onnx.helper.make_graph([proto], "constant", inputs, outputs)
    opset = onnx.helper.make_opsetid("", node.version or onnx.defs.onnx_opset_version())
    try:
        with np.errstate(all="ignore"):
            found: Any = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=[opset])).run(None, feeds)
    except _FAILURES:
        return None
    return found if all(isinstance(array, np.ndarray | np.generic) for array in found) else None
