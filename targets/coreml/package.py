"""The saved package: read its program, and take out of it what changes from run to run."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

from edgewise.targets.base import TargetError
from edgewise.targets.coreml.renaming import rename_values

_DATA = Path("Data")
_MODEL = _DATA / "com.apple.CoreML" / "model.mlmodel"
WEIGHTS = _DATA / "com.apple.CoreML" / "weights" / "weight.bin"
MANIFEST = "Manifest.json"
_SPACE = uuid.UUID("b7a4c9b2-5d06-5e0c-9a58-0c1de4f2a3e7")
_DATE = "com.github.apple.coremltools.conversion_date"


def read_spec(package: Path) -> Any:
    """The package's ``Model`` message (coremltools' protobuf).

    Raises:
        TargetError: the file is missing or does not decode.
    """
    from coremltools.proto import Model_pb2
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    spec = Model_pb2.Model()
    try:
        spec.ParseFromString((package / _MODEL).read_bytes())
    except (OSError, DecodeError) as error:
        raise TargetError(
            "cannot read the Core ML package",
            where=str(package),
            found=f"{_MODEL}: {error}",
            expected="a Core ML model",
            fix="Build it again",
        ) from error
    if spec.WhichOneof("Type") != "mlProgram":
        raise TargetError(
            "cannot read the Core ML package",
            where=str(package),
            found=f"a model of type {spec.WhichOneof('Type')}",
            expected="an ML Program",
            fix="Build it again",
        )
    return spec


def function_name(spec: Any) -> str:
    """The function that the package computes unless it is asked for another."""
    return str(spec.description.defaultFunctionName) or "main"


def normalize(package: Path) -> None:
    """Drop the date, name the values anew, and make the identifiers of the package's items from their content."""
    spec = read_spec(package)
    spec.description.metadata.userDefined.pop(_DATE, None)
    spec.mlProgram.attributes.pop("buildInfo", None)
    for name in sorted(spec.mlProgram.functions):
        rename_values(spec.mlProgram.functions[name])
    (package / _MODEL).write_bytes(spec.SerializeToString(deterministic=True))
    manifest = json.loads((package / MANIFEST).read_text(encoding="utf-8"))
    entries = manifest["itemInfoEntries"]
    stable = {name: _identifier(package / _DATA / entry["path"], entry["path"]) for name, entry in entries.items()}
    manifest["itemInfoEntries"] = dict(sorted((stable[name], entry) for name, entry in entries.items()))
    manifest["rootModelIdentifier"] = stable[manifest["rootModelIdentifier"]]
    (package / MANIFEST).write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n", encoding="utf-8")


def _identifier(item: Path, name: str) -> str:
    digest = hashlib.sha256(name.encode())
    files = [item] if item.is_file() else sorted(file for file in item.rglob("*") if file.is_file())
    for file in files:
        digest.update(file.relative_to(item.parent).as_posix().encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return str(uuid.uuid5(_SPACE, digest.hexdigest()))
