"""What a manifest says of the network itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgewise.macs import count_macs
from edgewise.runtime.tensors import TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir

_IMAGE_RANK = 4
_WEIGHTS = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "UINT8", "INT4", "UINT4", "INT16")


def tensor_entries(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    """Name, dtype, shape, symbolic dims and layout, in order."""
    return [
        {
            **spec.to_json(),
            "symbolic": [dim for dim in spec.shape if isinstance(dim, str)],
            "layout": "NCHW" if len(spec.shape) == _IMAGE_RANK else None,
        }
        for spec in specs
    ]


def network_entry(model: ir.Model, dynamic: int = 1) -> dict[str, Any]:
    """Operators by count, parameters, multiply-accumulates (dynamic dims taken for ``dynamic``), weight dtypes."""
    macs = count_macs(model, dynamic)
    weights = weights_of(model)
    dtypes = Counter[str]()
    for value in weights:
        dtypes[str(value.dtype)] += value.const_value.size if value.const_value is not None else 0
    return {
        "ops": dict(Counter(node.op_type for node in model.graph.all_nodes()).most_common()),
        "nodes": sum(1 for _ in model.graph.all_nodes()),
        "opset": model.graph.opset_imports.get("", None),
        "parameters": sum(dtypes.values()),
        "weight_dtypes": dict(dtypes),
        "weight_bytes": sum(value.const_value.nbytes for value in weights if value.const_value is not None),
        "macs": macs.total,
        "macs_unknown": macs.unknown,
        "macs_assumed": macs.assumed,
    }


def weights_of(model: ir.Model) -> list[ir.Value]:
    """The trained tensors: initializers in floats or small integers, and biases in int32, but no scales, zero points or indices."""
    found = []
    for graph in model.graphs():
        for value in graph.initializers.values():
            uses = list(value.uses())
            of_scales = [
                use for use in uses if use.node.op_type in ("QuantizeLinear", "DequantizeLinear") and use.idx > 0
            ]
            is_bias = str(value.dtype) == "INT32" and any(
                use.node.op_type == "DequantizeLinear" and use.idx == 0 for use in uses
            )
            if uses and len(of_scales) < len(uses) and (str(value.dtype) in _WEIGHTS or is_bias):
                found.append(value)
    return found
