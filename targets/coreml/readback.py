"""What was really built, read from the saved package: one entry per operation that computes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from edgewise.targets.coreml.options import Options
from edgewise.targets.coreml.package import read_spec

UNIT = "Core ML chooses at load time"
_WEIGHTS = ("weight", "weights", "y", "x", "alpha")


def operations(spec: Any) -> list[Any]:
    """The operations of the program's function ``main``."""
    function = spec.mlProgram.functions["main"]
    return list(function.block_specializations[function.opset].operations)


def dtype_of(value_type: Any) -> str:
    """``float16``, ``int8``, …: the element type of a MIL value type."""
    from coremltools.proto import MIL_pb2

    return str(MIL_pb2.DataType.Name(value_type.tensorType.dataType)).lower()


def layers_of(package: Path) -> list[dict[str, str]]:
    """Per operation: name, MIL type, dtype of its first output, unit, and how its weights are stored, if it has any."""
    listed = operations(read_spec(package))
    stored = {output.name: _form(op) for op in listed for output in op.outputs if op.type.startswith("const")}
    layers = []
    for op in listed:
        if op.type.startswith("const"):
            continue
        layer = {"name": op.outputs[0].name, "op": op.type, "precision": dtype_of(op.outputs[0].type), "unit": UNIT}
        forms = [stored[arg.name] for key in _WEIGHTS for arg in _arguments(op, key) if stored.get(arg.name)]
        layers.append(layer | ({"weights": forms[0]} if forms else {}))
    return layers


def _arguments(op: Any, key: str) -> list[Any]:
    return list(op.inputs[key].arguments) if key in op.inputs else []


def _form(op: Any) -> str:
    """``float16``, or ``int8 (constexpr_affine_dequantize)``; empty for constants that hold no weights."""
    output = op.outputs[0].type
    if not output.tensorType.dimensions:
        return ""
    if op.type == "const":
        kind = dtype_of(output)
        return kind if kind.startswith("float") else ""
    key = "quantized_data" if "quantized_data" in op.attributes else "data"
    value = op.attributes[key] if key in op.attributes else op.inputs[key].arguments[0].value
    return f"{dtype_of(value.type)} ({op.type})"


def notes_of(layers: list[dict[str, str]], options: Options) -> list[str]:
    """What of the precision asked for did not happen."""
    if not options.half:
        return []
    floats = Counter(layer["op"] for layer in layers if layer["precision"] == "float32" and layer["op"] != "cast")
    if not floats:
        return []
    listed = ", ".join(f"{count} {op}" for op, count in sorted(floats.items()))
    return [f"in float32, not float16: {listed} (kept by keep_float32, or a constant is beyond float16)"]
