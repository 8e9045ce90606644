"""What quantization tells its user."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from edgewise.quantize.layers import WEIGHTED
from edgewise.quantize.plan import Plan


def describe_plan(graph: ir.Graph, plan: Plan) -> dict[str, Any]:
    """The report's ``layers`` (all that have weights or multiply), ``kept_float`` and ``notes``, in the order of the graph."""
    layers = [_row(node, plan) for node in graph if node.op_type in WEIGHTED and not node.domain]
    kept = [
        {"node": node.name or "", "op": node.op_type, "reason": plan.refused[node]}
        for node in graph
        if node in plan.refused
    ]
    notes = list(plan.notes)
    if plan.already:
        notes.append(f"{len(plan.already)} layers came quantized; their scales are kept")
    return {"layers": layers, "kept_float": kept, "notes": notes}


def _row(node: ir.Node, plan: Plan) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": node.name or "",
        "op": node.op_type,
        "precision": "float32",
        "weight_dtype": "float32",
    }
    if node in plan.layers:
        row["precision"] = _precision(node, plan)
        row["weight_dtype"] = "none" if node not in plan.stored else plan.stored[node].coding.dtype.name.lower()
    elif node in plan.already:
        row["precision"] = "int8"
        row["weight_dtype"] = "as it came"
    row["granularity"] = plan.stored[node].coding.granularity if node in plan.stored else "none"
    if node in plan.stored:
        row["weight_bits"] = plan.stored[node].coding.bits
    return row | {"reason": plan.refused.get(node) or plan.already.get(node, "")}


def _precision(node: ir.Node, plan: Plan) -> str:
    """``int8`` where both factors have 8 bits (or 7), else as the schemes are named: w4a8, w8a16, w8d8, w4."""
    bits = plan.stored[node].coding.bits if node in plan.stored else 8
    if plan.spec.dynamic:
        return f"w{bits}d8"
    if plan.spec.weights_only:
        return f"w{bits}"
    value = node.inputs[plan.layers[node].activations[0]]
    # By now the layer reads the DequantizeLinear, whose zero point has the dtype.
    maker = value.producer() if value is not None else None
    point = maker.inputs[2].dtype if maker is not None and maker.inputs[2] is not None else None
    wide = point.bitwidth if point is not None else 8
    return "int8" if bits in (7, 8) and wide == 8 else f"w{bits}a{wide}"
