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
    row = {"name": node.name or "", "op": node.op_type, "precision": "float32", "weight_dtype": "float32"}
    if node in plan.layers:
        row["precision"] = "int8"
        row["weight_dtype"] = "none" if plan.layers[node].weight is None else plan.spec.weight_dtype
    elif node in plan.already:
        row["precision"] = "int8"
        row["weight_dtype"] = "as it came"
    scales = plan.weight_scales.get(node)
    row["granularity"] = "none" if scales is None else "per-channel" if scales.ndim else "per-tensor"
    return row | {"reason": plan.refused.get(node) or plan.already.get(node, "")}
