"""Whether a node is taken: what holds for every operator, then what its row says. Support and build both ask here."""

from __future__ import annotations

import difflib

import numpy as np
import onnx

from edgewise.targets.coreml.collapse import fits, is_tall
from edgewise.targets.coreml.flattened import takes_flat
from edgewise.targets.coreml.held import MAX_RANK
from edgewise.targets.coreml.node import NodeView, constant, dtype_name
from edgewise.targets.coreml.ports import check_port
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import BYTES, Row
from edgewise.targets.coreml.table import table

_INT32 = np.iinfo(np.int32)


def judge(node: NodeView) -> Refusal | None:
    """None when Core ML takes the node."""
    row = table().get((node.node.domain, node.node.op_type))
    if row is None:
        return _unknown(node)
    if row.control:
        return row.check(node)
    if node.ios < row.ios:
        return Refusal(
            f"iOS {node.ios} as deployment target", f"{row.op} from iOS {row.ios} on",
            f"Set minimum_deployment_target to iOS{row.ios}",
        )  # fmt: skip
    return _check_inputs(node, row) or _check_shapes(node, row) or row.check(node) or _check_ports(node)


def _unknown(node: NodeView) -> Refusal:
    names = [op for domain, op in table() if domain == ""]
    near = difflib.get_close_matches(node.node.op_type, names, n=1)
    if node.node.domain:
        return Refusal(
            f"the domain {node.node.domain!r}", "ONNX's own operators", "Export without runtime-specific fusions"
        )
    hint = f" (the nearest one taken is {near[0]})" if near else ""
    return Refusal(
        "an operator without a row in the table", f"the operators of docs/targets-coreml.md{hint}",
        "Rewrite it with those, or add a row in targets/coreml/ops",
    )  # fmt: skip


def _input_name(node: NodeView, index: int) -> str:
    try:
        schema = onnx.defs.get_schema(node.node.op_type, node.opset, node.node.domain)
    except onnx.defs.SchemaError:
        return f"input {index}"
    if not schema.inputs:
        return f"input {index}"
    return f"input {schema.inputs[min(index, len(schema.inputs) - 1)].name}"


def _check_inputs(node: NodeView, row: Row) -> Refusal | None:
    for index, value in enumerate(node.node.inputs):
        if value is None:
            continue
        array = constant(value)
        name = _input_name(node, index)
        if value.shape is None and value.is_graph_input():
            fix = "Export with a rank for each input"
            return Refusal("an unknown rank", f"rank up to {MAX_RANK}", fix, f"input {value.name!r}")
        if index in row.static:
            if array is None:
                return Refusal(
                    "a value computed at run time", "a constant", "Make it constant: export with fixed shapes", name
                )
            refusal = _check_numbers(array, name, index in row.weights)
            if refusal is not None:
                return refusal
            continue
        refusal = _check_dtype(node, row, dtype_name(value), name)
        if refusal is not None:
            return refusal
        if array is not None and index not in row.clamped:
            refusal = _check_range(array, name, index in row.weights)
            if refusal is not None:
                return refusal
    return None


def _check_dtype(node: NodeView, row: Row, dtype: str | None, name: str) -> Refusal | None:
    if dtype is None:
        return Refusal(
            "an unknown dtype", "known dtypes", "Run ONNX shape inference: a node before it may be broken", name
        )
    if dtype not in row.dtypes:
        fix = "Cast the model to float32" if dtype in ("float64", "bfloat16") else "Cast it first"
        return Refusal(dtype, ", ".join(sorted(row.dtypes)), fix, name)
    if dtype in BYTES and node.ios < 17 and node.node.op_type != "DequantizeLinear":
        return Refusal(dtype, f"{dtype} from iOS 17 on", "Set minimum_deployment_target to iOS17", name)
    return None


def _check_range(array: np.ndarray, name: str, is_weight: bool) -> Refusal | None:
    if array.dtype == np.int64 and array.size and (array.min() < _INT32.min or array.max() > _INT32.max):
        worst = max(array.min(), array.max(), key=abs)
        return Refusal(f"the integer {worst}", "integers of 32 bits", "Use smaller numbers", name)
    if array.size == 0:
        return Refusal("an empty tensor", "tensors with elements", "Drop it", name)
    return _check_numbers(array, name, is_weight)


def _check_numbers(array: np.ndarray, name: str, is_weight: bool) -> Refusal | None:
    """No constant may be NaN, and no weight infinite; a mask may be: what it is added to is left out."""
    if array.dtype.kind != "f":
        return None
    for kind, wrong in (("NaN", np.isnan(array)), ("infinite", np.isinf(array) & is_weight)):
        if wrong.any():
            found = f"{int(wrong.sum())} {kind} among {array.size} numbers"
            return Refusal(found, "numbers", "Check the checkpoint: it is broken", name)
    return None


def _check_shapes(node: NodeView, row: Row) -> Refusal | None:
    for index, output in enumerate(node.node.outputs):
        if not output.name or (index and not node.used(index)):
            continue
        dtype = dtype_name(output)
        if dtype in ("float64", "bfloat16", "string", "complex64", "complex128"):
            return Refusal(f"an output in {dtype}", "float32, float16, int32 and bool", "Cast the model to float32")
        shape = node.out_shape(index)
        if shape is None:
            return Refusal("an output of unknown rank", "known ranks", "Export with fixed shapes")
    if (row.elementwise and is_tall(node) and fits(node)) or takes_flat(node, row):
        return None
    for name, shape in _shapes(node, row):
        if 0 in shape:
            return Refusal("an empty tensor", "tensors with elements", "Drop what makes it", name)
        if len(shape) > MAX_RANK and (not row.high_rank or shape.count(None) > 1):
            return Refusal(
                f"rank {len(shape)}", f"rank up to {MAX_RANK} (above it only Reshape, Transpose, Squeeze and what looks at each element alone)",
                "Reshape to fewer axes first", name,
            )  # fmt: skip
    return None


def _check_ports(node: NodeView) -> Refusal | None:
    """A node that reads an input, or makes an output, which Core ML cannot have."""
    inputs = ((value, "input") for value in node.node.inputs if value is not None and value.is_graph_input())
    outputs = ((value, "output") for value in node.node.outputs if value.is_graph_output())
    return next(
        (refusal for value, kind in (*inputs, *outputs) if (refusal := check_port(value, kind, node.ios))), None
    )


def _shapes(node: NodeView, row: Row) -> list[tuple[str, tuple[int | None, ...]]]:
    inputs = [
        (_input_name(node, index), node.shape(index))
        for index in range(len(node.node.inputs))
        if index not in (*row.static, *row.clamped)
    ]
    outputs = [(f"output {index}", node.out_shape(index)) for index in range(len(node.node.outputs))]
    return [(name, shape) for name, shape in inputs + outputs if shape is not None]
