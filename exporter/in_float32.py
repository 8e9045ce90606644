"""Networks in bfloat16 are exported in float32: numpy has no bfloat16, and ONNX Runtime hardly any operator for it on a processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgewise.runtime.tensors import TensorSpec

# In a source's facts, and told as a warning.
FACT = "bfloat16"
TOLD = "computed in float32, inputs and outputs too"


def widen_specs(specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The same inputs, float32 where they are bfloat16."""
    return [replace(spec, dtype="float32") if spec.dtype == "bfloat16" else spec for spec in specs]
