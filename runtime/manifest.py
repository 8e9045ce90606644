"""The form of a bundle's ``manifest.json``; docs/bundle.md describes what the keys mean."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgewise.runtime.errors import RunError
from edgewise.runtime.tensors import DTYPES

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
SIGNATURE = "signature.json"
_LARGEST_BYTES = 64 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")

Check = Callable[[Any], bool]


def read_manifest(file: Path, where: str) -> dict[str, Any]:
    """Read and check a manifest.

    Raises:
        RunError: not JSON, another schema version, a key that is missing or of another type; ``where`` is named in it.
    """
    try:
        size = file.stat().st_size
        if size > _LARGEST_BYTES:
            raise damaged(where, f"{MANIFEST} of {size} bytes")
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(where, f"{MANIFEST} that is not JSON ({type(error).__name__})") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise RunError(
            "cannot open the bundle",
            where=where,
            found=f"schema_version {version!r}",
            expected=str(SCHEMA_VERSION),
            fix="Build it again with this version of edgewise",
        )
    for key, (required, check) in _KEYS.items():
        if key not in manifest and required:
            raise damaged(where, f"{MANIFEST} without {key!r}")
        if key in manifest and not check(manifest[key]):
            raise damaged(where, f"another form of {key!r} in {MANIFEST}")
    if lost := [name for name in manifest["engine"]["files"] if name not in manifest["files"]]:
        raise damaged(where, f"an engine file without a digest: {lost[0]!r}")
    checked: dict[str, Any] = manifest
    return checked


def damaged(where: str, found: str) -> RunError:
    """The error for a bundle that is not as it was built."""
    return RunError(
        "the bundle is damaged",
        where=where,
        found=found,
        expected="the files as they were built",
        fix="Copy or build it again",
    )


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _table(value: Any) -> bool:
    return isinstance(value, dict)


def _table_or_none(value: Any) -> bool:
    return value is None or _table(value)


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _table_of(check: Check) -> Check:
    return lambda value: _table(value) and all(map(check, value.values()))


def _dim(value: Any) -> bool:
    return _text(value) or (type(value) is int and 0 <= value < 1 << 40)


def _tensor(value: Any) -> bool:
    return (
        _table(value)
        and _text(value.get("name"))
        and _text(value.get("dtype"))
        and value["dtype"] in DTYPES
        and _list_of(_dim)(value.get("shape"))
    )


def _tensors(value: Any) -> bool:
    return _list_of(_tensor)(value) and len({entry["name"] for entry in value}) == len(value)


def _digests(value: Any) -> bool:
    return _table(value) and all(_text(digest) and bool(_DIGEST.fullmatch(digest)) for digest in value.values())


def _function(value: Any) -> bool:
    ports = _table(value) and _tensors(value.get("inputs")) and _tensors(value.get("outputs"))
    return ports and all(_text(value.get(key)) for key in ("name", "reference"))


def _engine(value: Any) -> bool:
    forms: dict[str, Check] = {
        "kind": _text,
        "files": _list_of(_text),
        "versions": _table_of(_text),
        "layers": _list_of(_table),
        "settings": _table,
        "notes": _list_of(_text),
        "functions": _list_of(_function),
        "proof": _table,
    }
    return _table(value) and {"kind", "files"} <= set(value) and all(
        check(value[key]) for key, check in forms.items() if key in value
    )  # fmt: skip


# Key: whether it must be there, and its form. Other keys are let through.
_KEYS: dict[str, tuple[bool, Check]] = {
    "name": (False, _text),
    "source": (False, _table_or_none),
    "inputs": (True, _tensors),
    "outputs": (True, _tensors),
    "preprocess": (False, _table_or_none),
    "target": (True, _text),
    "device": (False, _text),
    "network": (False, _table_or_none),
    "engine": (True, _engine),
    "stages": (False, _table_or_none),
    "quantization": (False, _table_or_none),
    "sparsity": (False, _table_or_none),
    "support": (False, _table_or_none),
    "parity": (False, _table_or_none),
    "accuracy": (False, _table_or_none),
    "versions": (False, _table_of(_text)),
    "keys": (False, _table_of(_text)),
    "files": (True, _digests),
}
