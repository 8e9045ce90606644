"""Joint projections (queries, keys and values of one product) taken apart, so that they stay in integers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir


@dataclass(frozen=True)
class _Part:
    """What one part of a product's columns becomes: ``value`` is what the graph calls it now; ``dims`` None: as the product makes it."""

    value: ir.Value
    columns: np.ndarray
    dims: list[int] | None = None
    perm: list[int] | None = None


@dataclass(frozen=True)
class _Joint:
    """A quantized product, its bias, and the parts into which its columns go."""

    product: ir.Node
    bias: ir.Value | None
    parts: list[_Part]


class SeparateProjections(ir.passes.InPlacePass):
    """Cut a quantized product whose columns are taken apart at once into one product for each part.

    Before::

        x̂ ─► MatMul(ŵ [C, 3C]) ─► Add(b) ─► Split                                              ─► q, k, v
        x̂ ─► MatMul(ŵ [C, 3C]) ─► Add(b) ─► Reshape[…, 3, H, D] ─► Transpose ─► Gather 0, 1, 2 ─► q, k, v
        x̂ ─► MatMul(ŵ [C, 3C]) ─► Add(b) ─► Reshape[…, 3, H, D] ─► Gather 0, 1, 2 of the axis of 3  ─► q, k, v

    After::

        x̂ ─► MatMul(ŵ₀ [C, C]) ─► Add(b₀) ─► q        (likewise k, v; with Reshape[…, H, D] ─► Transpose in the second form, Reshape in the third)

    The numbers are the same, column by column. TensorRT for RTX makes three products of the joint one anyway, but cuts the dequantized
    weights, and so multiplies in float16; three that it is given it joins in one integer kernel. The first part keeps the product's name.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Treat every MatMul of the main graph both of whose factors are dequantized."""
        found = [
            joint for node in list(model.graph) if node.op_type == "MatMul" and (joint := _joint(node)) is not None
        ]
        for joint in found:
            _separate(joint, model.graph)
        return ir.passes.PassResult(model, modified=bool(found))


def _joint(product: ir.Node) -> _Joint | None:
    weights = product.inputs[1].producer() if product.inputs[1] is not None else None
    data = product.inputs[0].producer() if product.inputs[0] is not None else None
    if weights is None or data is None or {weights.op_type, data.op_type} != {"DequantizeLinear"}:
        return None
    stored = _array(weights.inputs[0])
    if stored is None or stored.ndim != 2 or any(_array(value) is None for value in weights.inputs[1:]):
        return None
    reader, bias = _only_reader(product), None
    if reader is not None and reader.op_type == "Add":
        bias = next((value for value in reader.inputs if _array(value) is not None), None)
        if bias is None or _known(bias).shape != stored.shape[1:]:
            return None
        reader = _only_reader(reader)
    parts = _parts(reader, stored.shape[1]) if reader is not None else []
    return _Joint(product, bias, parts) if parts and not any(part.value.is_graph_output() for part in parts) else None


def _parts(reader: ir.Node, width: int) -> list[_Part]:
    source = reader.inputs[0]
    rank = len(source.shape) if source is not None and source.shape is not None else 0
    if reader.op_type == "Split" and rank and reader.attributes.get_int("axis", 0) in (-1, rank - 1):
        sizes = _array(reader.inputs[1]) if len(reader.inputs) > 1 else None
        count = len(reader.outputs)
        if sizes is None and width % count:
            return []
        ends = np.cumsum(sizes if sizes is not None else [width // count] * count)
        return [
            _Part(value, np.arange(end - size, end))
            for value, end, size in zip(reader.outputs, ends, np.diff(ends, prepend=0), strict=True)
        ]
    if reader.op_type != "Reshape" or not rank:
        return []
    return _heads(reader, rank, width) or _in_place(reader, width)


def _heads(reshape: ir.Node, rank: int, width: int) -> list[_Part]:
    """The second form: the columns get dims of their own, of which the first that Transpose puts in front is taken apart."""
    transpose, made = _only_reader(reshape), reshape.outputs[0].shape
    if transpose is None or transpose.op_type != "Transpose" or made is None or "perm" not in transpose.attributes:
        return []
    perm, dims = list(transpose.attributes["perm"].as_ints()), list(made)[rank - 1 :]
    chosen = perm[0] - (rank - 1)
    sizes = [dim for dim in dims if isinstance(dim, int)]
    if chosen < 0 or len(sizes) != len(dims) or int(np.prod(sizes)) != width or not _leading_stay(reshape, rank):
        return []
    taken = _taken(transpose.outputs[0])
    columns = np.arange(width).reshape(sizes)
    rest = sizes[:chosen] + sizes[chosen + 1 :]
    order = [axis - (axis > perm[0]) for axis in perm[1:]]
    return [_Part(value, columns.take(index, chosen).ravel(), [0] * (rank - 1) + rest, order) for index, value in taken]


def _in_place(reshape: ir.Node, width: int) -> list[_Part]:
    """The third form: the columns get dims of their own, of which one is taken apart where it is; rows may be joined or split."""
    made = reshape.outputs[0].shape
    dims = list(made) if made is not None else []
    sizes = [dim if isinstance(dim, int) else 0 for dim in dims]
    lead = next((axis for axis in range(len(sizes)) if math.prod(sizes[axis:]) == width), None)
    readers = [use.node for use in reshape.outputs[0].uses()]
    if lead is None or sizes[:lead].count(0) > 1 or not readers:
        return []
    axis = readers[0].attributes.get_int("axis", 0)
    taken = _taken(reshape.outputs[0], axis) if axis >= lead else []
    columns = np.arange(width).reshape(sizes[lead:])
    rest = [size or -1 for size in (*sizes[:axis], *sizes[axis + 1 :])]
    return [_Part(value, columns.take(index, axis - lead).ravel(), rest) for index, value in taken]


def _leading_stay(reshape: ir.Node, rank: int) -> bool:
    """Whether the dims before the columns are those of the input; one of them may be unknown, the others fix it."""
    source, made = reshape.inputs[0], reshape.outputs[0]
    if source is None or source.shape is None or made.shape is None or reshape.attributes.get_int("allowzero", 0) == 1:
        return False
    pairs = zip(list(source.shape)[: rank - 1], list(made.shape)[: rank - 1], strict=True)
    return sum(before != after for before, after in pairs) <= 1


def _taken(value: ir.Value, axis: int = 0) -> list[tuple[int, ir.Value]]:
    """Index and result of every reader that takes one entry of the axis; empty when one does something else."""
    readers = [use.node for use in value.uses()]
    if len(readers) == 1 and readers[0].op_type == "Split" and readers[0].attributes.get_int("axis", 0) == axis:
        squeezed = [_only_reader_of(output) for output in readers[0].outputs]
        whole = value.shape is not None and value.shape[axis] == len(squeezed)
        known = [node for node in squeezed if node is not None and node.op_type == "Squeeze" and _squeezes(node, axis)]
        return (
            [(index, node.outputs[0]) for index, node in enumerate(known)]
            if whole and len(known) == len(squeezed)
            else []
        )
    found = []
    for node in readers:
        index = _array(node.inputs[1]) if node.op_type == "Gather" else None
        if (
            index is None
            or index.ndim
            or node.attributes.get_int("axis", 0) != axis
            or node.inputs[0] is not value
            or index < 0
        ):
            return []
        found.append((int(index), node.outputs[0]))
    return found


def _squeezes(squeeze: ir.Node, axis: int) -> bool:
    axes = _array(squeeze.inputs[1]) if len(squeeze.inputs) > 1 else None
    return axes is not None and axes.tolist() == [axis]


def _separate(joint: _Joint, graph: ir.Graph) -> None:
    product, name = joint.product, joint.product.name or ""
    product.name = f"{name}_joint"
    taken = {node.name for node in graph}
    for number, part in enumerate(joint.parts):
        label = _free(f"{name}_{number}", taken) if number else name
        nodes = [_weights(joint, part, label, graph)]
        nodes.append(ir.node("MatMul", [product.inputs[0], nodes[0].outputs[0]], name=label))
        if joint.bias is not None:
            bias = _stored(f"{label}_bias", _known(joint.bias)[part.columns], graph)
            nodes.append(ir.node("Add", [nodes[-1].outputs[0], bias], name=f"{label}_Add"))
        if part.dims is not None:
            dims = _stored(f"{label}_dims", np.array(part.dims, np.int64), graph)
            nodes.append(ir.node("Reshape", [nodes[-1].outputs[0], dims], name=f"{label}_Reshape"))
        if part.perm is not None:
            nodes.append(ir.node("Transpose", [nodes[-1].outputs[0]], {"perm": part.perm}, name=f"{label}_Transpose"))
        for node in nodes:
            node.outputs[0].name = f"{node.name}_part"
        graph.insert_before(product, nodes)
        part.value.replace_all_uses_with(nodes[-1].outputs[0])
        nodes[-1].outputs[0].name, part.value.name = part.value.name, f"{part.value.name}_joint"


def _free(name: str, taken: Collection[str | None]) -> str:
    """Exporters number names just so: ``attn/MatMul_1`` may be there, and it is no part of ``attn/MatMul``."""
    return next(
        each
        for each in itertools.chain([name], (f"{name}_part{count}" for count in itertools.count()))
        if each not in taken
    )


def _weights(joint: _Joint, part: _Part, label: str, graph: ir.Graph) -> ir.Node:
    """The part's columns of the stored weights, with their scales."""
    value = joint.product.inputs[1]
    old = value.producer() if value is not None else None
    if old is None:
        raise ValueError(label)
    arrays = [_known(each) for each in old.inputs]
    cut = [
        arrays[0][:, part.columns],
        *(array[part.columns] if array.size > 1 and _by_column(old) else array for array in arrays[1:]),
    ]
    inputs = [
        _stored(f"{label}_{kind}", array, graph)
        for kind, array in zip(("integers", "scale", "zero"), cut, strict=False)
    ]
    return ir.node("DequantizeLinear", inputs, dict(old.attributes), name=f"{label}_DequantizeLinear")


def _by_column(dequantize: ir.Node) -> bool:
    return dequantize.attributes.get_int("axis", 1) in (1, -1)


def _only_reader(node: ir.Node) -> ir.Node | None:
    return _only_reader_of(node.outputs[0])


def _only_reader_of(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def _array(value: ir.Value | None) -> np.ndarray | None:
    return value.const_value.numpy() if value is not None and value.const_value is not None else None


def _known(value: ir.Value | None) -> np.ndarray:
    array = _array(value)
    return np.zeros(0) if array is None else array


def _stored(name: str, array: np.ndarray, graph: ir.Graph) -> ir.Value:
    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value
