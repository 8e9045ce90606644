"""Dtypes of an ONNX graph changed for wider ones that hold the same numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgewise.runtime.extras import needs

if TYPE_CHECKING:
    import onnx_ir as ir

# Attributes that say a dtype by its number.
_TOLD = ("to", "dtype", "output_dtype", "softmax_precision")


def widen_graph(model: ir.Model, wider: Mapping[ir.DataType, ir.DataType], keep: Iterable[ir.Value] = ()) -> bool:
    """Give every value, weight and attribute of a dtype the one that ``wider`` has for it; bodies of control flow and functions too.

    Args:
        model: changed in place. Roundings to the narrower dtype between operators are left out.
        wider: by dtype.
        keep: inputs and results of nodes that stay what they are.

    Returns:
        Whether anything was of such a dtype.
    """
    with needs("graph"):
        import onnx_ir as ir
    kept = {id(value) for value in keep}
    changed = False
    for part in (model.graph, *(function.graph for function in model.functions.values())):
        nodes = list(ir.traversal.RecursiveGraphIterator(part))
        bodies = [body for node in nodes for body in _bodies(node)]
        for graph in (part, *bodies):
            changed |= _widen_values((value for value in graph.inputs if id(value) not in kept), wider)
            changed |= _widen_values(list(graph.initializers.values()), wider)
        for node in nodes:
            changed |= _widen_attributes(node, wider)
            changed |= _widen_values((value for value in node.outputs if id(value) not in kept), wider)
    return changed


def widen_bfloat16(model: ir.Model) -> bool:
    """Make bfloat16 float32 all through a model, its inputs and outputs too: neither numpy nor ONNX Runtime computes in it.

    Returns:
        Whether anything was bfloat16.
    """
    with needs("graph"):
        import onnx_ir as ir
    return widen_graph(model, {ir.DataType.BFLOAT16: ir.DataType.FLOAT})


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    import onnx_ir as ir

    for attribute in node.attributes.values():
        if attribute.type is ir.AttributeType.GRAPH and not attribute.is_ref():
            yield attribute.as_graph()
        elif attribute.type is ir.AttributeType.GRAPHS and not attribute.is_ref():
            yield from attribute.as_graphs()


def _widen_values(values: Iterable[ir.Value], wider: Mapping[ir.DataType, ir.DataType]) -> bool:
    import onnx_ir as ir

    found = [(value, wider[value.dtype]) for value in values if value.dtype is not None and value.dtype in wider]
    for value, wide in found:
        if value.const_value is not None:
            value.const_value = ir.tensor(_as(value.const_value.numpy(), wide), name=value.name)
        value.type = ir.TensorType(wide)  # not its dtype: copies of a graph share types
    return bool(found)


def _widen_attributes(node: ir.Node, wider: Mapping[ir.DataType, ir.DataType]) -> bool:
    import onnx_ir as ir

    changed = False
    for name, attribute in list(node.attributes.items()):
        if attribute.is_ref():
            continue
        if attribute.type is ir.AttributeType.TENSOR and attribute.as_tensor().dtype in wider:
            tensor = attribute.as_tensor()
            node.attributes[name] = ir.AttrTensor(name, ir.tensor(_as(tensor.numpy(), wider[tensor.dtype])))
        elif name in _TOLD and attribute.type is ir.AttributeType.INT and attribute.as_int() in map(int, wider):
            node.attributes[name] = ir.AttrInt64(name, int(wider[ir.DataType(attribute.as_int())]))
        else:
            continue
        changed = True
    return changed


def _as(array: np.ndarray, dtype: ir.DataType) -> np.ndarray:
    with np.errstate(over="ignore"):  # a float64 beyond float32 is infinite there
        return np.asarray(array).astype(dtype.numpy())
