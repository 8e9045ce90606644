"""A batch that a file fixes at 1, made dynamic where the graph allows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgewise.exporter.batch_rules import RULES, Batch, HeldError
from edgewise.exporter.errors import ExportError


@dataclass
class FreeBatch(ir.passes.InPlacePass):
    """Give the leading dim of inputs a name, and let what was computed for one sample follow.

    Before::

        x [1, C, H, W] ─► Conv ─► Reshape(1, C·H·W) ─► y [1, C·H·W]

    After::

        x [N, C, H, W] ─► Conv ─► Reshape(-1, C·H·W) ─► y [N, C·H·W]

    Each node is asked by ``batch_rules`` where the samples lie in what it makes. Constants that name a size of 1 for them (in Reshape,
    Resize and Expand) are written anew; what is the same for all samples is repeated before it is joined to them.

    Attributes:
        inputs: the names of the inputs whose leading dim becomes dynamic.
        dim: its name.
        axes: after the call, by output the axis along which samples lie; None: it is the same for all of them.
    """

    inputs: list[str]
    dim: str
    axes: dict[str, int | None] = field(default_factory=dict)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Walk the main graph; its values need their shapes for one sample.

        Raises:
            ExportError: a node mixes samples, or nobody knows whether it does; names it.
        """
        known: dict[ir.Value, Batch] = {}
        for value in model.graph.inputs:
            if value.name in self.inputs:
                known[value] = Batch(0, 1)
        for node in list(model.graph):
            if any(value in known for value in node.inputs if value is not None):
                self._follow(node, known, model.graph)
        self.axes = {str(value.name): known[value].axis if value in known else None for value in model.graph.outputs}
        for value, batch in known.items():
            _name_dim(value, batch, self.dim)
        return ir.passes.PassResult(model, modified=bool(known))

    def _follow(self, node: ir.Node, known: dict[ir.Value, Batch], graph: ir.Graph) -> None:
        places = [known.get(value) if value is not None else None for value in node.inputs]
        rule = None if node.domain not in ("", "ai.onnx") else RULES.get(node.op_type)
        if rule is None:
            raise _held(node, f"{node.op_type}, of which nothing is known", self.dim)
        try:
            found = rule(node, places)
            _rewrite(node, places, found, graph)
        except HeldError as held:
            raise _held(node, str(held), self.dim) from None
        if found is not None:
            known.update((value, found) for value in node.outputs if value.name and value.shape is not None)


def _rewrite(node: ir.Node, places: list[Batch | None], made: Batch | None, graph: ir.Graph) -> None:
    """What names the size of one sample's batch, or holds what is to be joined to it."""
    if made is None:
        return
    if node.op_type == "Reshape" and _constant(node, 1):
        _reshape(node, made, graph)
    elif node.op_type == "Expand" and _constant(node, 1):
        _sizes(node, 1, made, node.inputs[0], places[0], graph)
    elif node.op_type == "Resize" and len(node.inputs) > 3 and _constant(node, 3) and "axes" not in node.attributes:
        _sizes(node, 3, made, node.inputs[0], places[0], graph)
    elif node.op_type == "Concat":
        source = next(index for index, place in enumerate(places) if place is not None)
        for index in [index for index, place in enumerate(places) if place is None]:
            _repeat(node, index, made, source, graph)


def _reshape(node: ir.Node, made: Batch, graph: ir.Graph) -> None:
    dims = [dim if isinstance(dim, int) else None for dim in node.outputs[0].shape or ()]
    dims[made.axis] = -1
    if None in dims:
        raise HeldError("a Reshape with another size that is not known")
    node.replace_input_with(1, _stored(f"{_label(node)}_any_batch", np.array(dims, np.int64), graph))
    node.attributes.pop("allowzero", None)


def _sizes(
    node: ir.Node, index: int, made: Batch, source: ir.Value | None, place: Batch | None, graph: ir.Graph
) -> None:
    """A constant list of sizes, with the batch's as it comes."""
    constant = node.inputs[index]
    sizes = (
        np.asarray(constant.const_value.numpy()) if constant is not None and constant.const_value is not None else None
    )
    if sizes is None or source is None or place is None:
        raise HeldError(f"{node.op_type} to sizes that are not known")
    size = _batch_size(node, source, place, graph)
    node.replace_input_with(index, _with_batch(node, "sizes", sizes, made.axis, size, graph))


def _repeat(node: ir.Node, index: int, made: Batch, source: int, graph: ir.Graph) -> None:
    """The same for every sample: written once for each."""
    value, first = node.inputs[index], node.inputs[source]
    shape = list(value.shape or ()) if value is not None else []
    if value is None or first is None or made.times != 1 or any(not isinstance(dim, int) for dim in shape):
        raise HeldError("a Concat with what is the same for all samples")
    size = _batch_size(node, first, made, graph)
    sizes = np.array([dim if isinstance(dim, int) else 0 for dim in shape], np.int64)
    target = _with_batch(node, f"sizes_{index}", sizes, made.axis, size, graph)
    dims = [None if axis == made.axis else dim for axis, dim in enumerate(shape)]
    repeated = _insert(node, "Expand", [value, target], f"repeated_{index}", dims, graph, {}, value.dtype)
    node.replace_input_with(index, repeated)


def _with_batch(node: ir.Node, label: str, sizes: np.ndarray, axis: int, size: ir.Value, graph: ir.Graph) -> ir.Value:
    """A list of sizes whose entry for the batch is computed."""
    around = (("before", sizes[:axis]), ("behind", sizes[axis + 1 :]))
    before, behind = (
        [_stored(f"{_label(node)}_{label}_{side}", part, graph)] if part.size else [] for side, part in around
    )
    return _insert(node, "Concat", [*before, size, *behind], label, [len(sizes)], graph, {"axis": 0})


def _batch_size(node: ir.Node, source: ir.Value, place: Batch, graph: ir.Graph) -> ir.Value:
    whole = _insert(node, "Shape", [source], f"shape_of_{source.name}", [len(source.shape or ())], graph)
    at = _stored(f"{_label(node)}_axis_{source.name}", np.array([place.axis], np.int64), graph)
    return _insert(node, "Gather", [whole, at], f"batch_of_{source.name}", [1], graph, {"axis": 0})


def _insert(
    before: ir.Node, op: str, inputs: list[ir.Value], label: str, shape: Sequence[object], graph: ir.Graph,
    attributes: dict[str, int] | None = None, dtype: ir.DataType | None = ir.DataType.INT64,
) -> ir.Value:  # fmt: skip
    node = ir.node(op, inputs, attributes or {}, name=f"{_label(before)}_{label}")
    made = node.outputs[0]
    made.name, made.shape = f"{_label(before)}_{label}", ir.Shape(shape)  # type: ignore[arg-type]
    made.type = ir.TensorType(dtype) if dtype is not None else None
    graph.insert_before(before, node)
    return made


def _label(node: ir.Node) -> str:
    """Not every file names its nodes; what they make has a name always."""
    return node.name or str(node.outputs[0].name)


def _stored(name: str, array: np.ndarray, graph: ir.Graph) -> ir.Value:
    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def _constant(node: ir.Node, index: int) -> bool:
    value = node.inputs[index]
    return value is not None and value.const_value is not None


def _name_dim(value: ir.Value, batch: Batch, dim: str) -> None:
    if value.shape is not None:
        dims: list[int | ir.SymbolicDim | str | None] = list(value.shape)
        dims[batch.axis] = dim if batch.times == 1 else f"{batch.times}*{dim}"
        value.shape = ir.Shape(dims)


def _held(node: ir.Node, found: str, dim: str) -> ExportError:
    return ExportError(
        "the batch cannot be made dynamic",
        where=f"node {_label(node)!r}, operator {node.op_type}",
        found=found,
        expected=f"a network whose samples stay apart from the first dim {dim!r} on",
        fix="Leave the batch of 1 as it is, or export the network from its framework with a dynamic batch",
    )
