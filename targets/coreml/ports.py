"""What Core ML takes as input and output of a network."""

from __future__ import annotations

import onnx_ir as ir

from edgewise.targets.coreml.held import MAX_RANK
from edgewise.targets.coreml.node import dtype_name
from edgewise.targets.coreml.refusal import Refusal
from edgewise.targets.coreml.row import ANY, BYTES

_FIRST_WITH_HALF, _FIRST_WITH_BYTES = 16, 17


def check_port(value: ir.Value, kind: str, ios: int) -> Refusal | None:
    """Whether a graph's ``input`` or ``output`` (``kind``) can be one of a package; booleans and bytes travel as int32."""
    dtype = dtype_name(value)
    allowed = ANY | (BYTES if ios >= _FIRST_WITH_BYTES else frozenset())
    allowed -= frozenset() if ios >= _FIRST_WITH_HALF else {"float16"}
    if dtype not in allowed:
        fix = f"Cast the {kind} inside the model"
        return Refusal(dtype or "an unknown dtype", ", ".join(sorted(allowed)), fix, f"{kind} {value.name!r}")
    if value.shape is None or len(value.shape) > MAX_RANK:
        found = "an unknown rank" if value.shape is None else f"rank {len(value.shape)}"
        return Refusal(
            found, f"rank up to {MAX_RANK}", f"Reshape the {kind} inside the model", f"{kind} {value.name!r}"
        )
    return None
