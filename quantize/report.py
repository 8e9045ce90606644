"""What quantization tells its user."""

from __future__ import annotations

from typing import Any

from edgewise.quantize.layers import Layer
from edgewise.quantize.plan import Plan


def describe_plan(plan: Plan) -> dict[str, Any]:
    """``layers``, ``kept_float`` and ``notes``, as plain JSON."""
    rows = [_quantized(layer, plan) for layer in plan.layers.values()]
    rows += [
        {
            "name": node.name or "",
            "op": node.op_type,
            "precision": "float32",
            "weight_dtype": "float32",
            "granularity": "none",
            "reason": reason,
        }
        for node, reason in plan.refused.items()
    ]
    return {"layers": rows, "kept_float": plan.kept_float, "notes": plan.notes}


def _quantized(layer: Layer, plan: Plan) -> dict[str, Any]:
    scales = plan.weight_scales.get(layer.node)
    granularity = "none" if scales is None else "per-channel" if scales.ndim else "per-tensor"
    return {
        "name": layer.node.name or "",
        "op": layer.node.op_type,
        "precision": "int8",
        "weight_dtype": plan.spec.weight_dtype if layer.weight is not None else "none",
        "granularity": granularity,
        "reason": "",
    }
