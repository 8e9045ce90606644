"""What was really built, read from the saved package: one entry per operation that computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgewise.targets.coreml.options import Options
from edgewise.targets.coreml.package import function_name, read_spec

UNIT = "Core ML chooses at load time"
_WEIGHTS = ("weight", "weights", "y", "x", "alpha")
_DATA = ("quantized_data", "indices", "indices_nonzero_data", "nonzero_data", "data")


def operations(spec: Any, name: str = "") -> list[Any]:
    """The operations of one of the program's functions; by default of the one that is computed by default."""
    function = spec.mlProgram.functions[name or function_name(spec)]
    return list(function.block_specializations[function.opset].operations)


def dtype_of(value_type: Any) -> str:
    """``float16``, ``int8``, …: the element type of a MIL value type."""
    from coremltools.proto import MIL_pb2

    return str(MIL_pb2.DataType.Name(value_type.tensorType.dataType)).lower()


def layers_of(package: Path) -> list[dict[str, str]]:
    """Per operation: name, MIL type, dtype of its first output, unit, and how its weights are stored, if it has any.

    Where the package has several functions, each layer names its own.
    """
    spec = read_spec(package)
    names = [function.name for function in spec.description.functions]
    if not names:
        return _layers(operations(spec))
    return [{**layer, "function": name} for name in names for layer in _layers(operations(spec, name))]


def _layers(listed: list[Any]) -> list[dict[str, str]]:
    made = {output.name: op for op in listed for output in op.outputs if op.type.startswith("constexpr")}
    stored = {output.name: _form(op, made) for op in listed for output in op.outputs if op.type.startswith("const")}
    layers = []
    for op in listed:
        if op.type.startswith("const") or not op.outputs:
            continue
        layer = {"name": op.outputs[0].name, "op": op.type, "precision": dtype_of(op.outputs[0].type), "unit": UNIT}
        forms = [stored[arg.name] for key in _WEIGHTS for arg in _arguments(op, key) if stored.get(arg.name)]
        layers.append(layer | ({"weights": forms[0]} if forms else {}))
    return layers


def _arguments(op: Any, key: str) -> list[Any]:
    return list(op.inputs[key].arguments) if key in op.inputs else []


def _form(op: Any, made: Mapping[str, Any]) -> str:
    """``float16``, ``int8 (constexpr_affine_dequantize)``, ``uint4 palette (…)``, ``sparse int8 (…)``; empty: no weights.

    ``made`` holds the operations before it by their outputs.
    """
    output = op.outputs[0].type
    if not output.tensorType.dimensions:
        return ""
    if op.type == "const":
        kind = dtype_of(output)
        return kind if kind.startswith("float") else ""
    if op.type == "constexpr_sparse_to_dense":
        return f"sparse {_stored(op, made)} ({op.type})"
    return f"{_stored(op, made)} ({op.type})"


def _stored(op: Any, made: Mapping[str, Any]) -> str:
    """The dtype of what is in the file; ``palette`` when it counts the entries of a table."""
    key = next(key for key in _DATA if key in op.attributes or key in op.inputs)
    if key in op.attributes:
        value = op.attributes[key]
        kind = dtype_of(value.type)
    else:
        argument = op.inputs[key].arguments[0]
        if argument.WhichOneof("binding") == "name" and (maker := made.get(argument.name)) is not None:
            return _stored(maker, made)
        kind = dtype_of(argument.value.type)
    if "lut" not in op.attributes and "lut" not in op.inputs:
        return kind
    return f"{_index_dtype(op, kind)} palette"


def _index_dtype(op: Any, kind: str) -> str:
    """Before iOS 18 indices lie packed in bytes: their width follows from the table."""
    if "shape" not in op.attributes and "shape" not in op.inputs:
        return kind
    table = op.attributes["lut"] if "lut" in op.attributes else op.inputs["lut"].arguments[0].value
    return f"uint{int(table.type.tensorType.dimensions[0].constant.size).bit_length() - 1}"


def notes_of(layers: list[dict[str, str]], options: Options) -> list[str]:
    """What of the precision asked for did not happen."""
    if not options.half:
        return []
    floats = Counter(layer["op"] for layer in layers if layer["precision"] == "float32" and layer["op"] != "cast")
    if not floats:
        return []
    listed = ", ".join(f"{count} {op}" for op, count in sorted(floats.items()))
    return [
        f"in float32, not float16: {listed} (kept by keep_float32, by the calibration data or for a logarithm, or a constant is beyond float16)"
    ]
