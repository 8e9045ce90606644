"""Signing bundles, and checking that they are signed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgewise.errors import ToolchainError
from edgewise.runtime.bundle import open_bundle
from edgewise.runtime.signature import check_signature, sign_folder, write_keys
from edgewise.stages.profile import identify
from edgewise.verbs.result import SCHEMA_VERSION


def sign(bundle: str | Path, key: str | Path, *, new_key: bool = False) -> dict[str, Any]:
    """Sign a bundle with a private key.

    Args:
        bundle: the folder ``NAME.edge``; its digests are checked first.
        key: PEM file of an Ed25519 private key.
        new_key: make that file first, and ``KEY.pub`` beside it.

    Returns:
        ``schema_version, bundle, public_key`` (hex digits) and ``signature``, the file.

    Raises:
        RunError: a damaged bundle, or a key that cannot be read.
        ToolchainError: a zip.
    """
    path = Path(bundle)
    if path.is_file():
        raise ToolchainError(
            "cannot sign a zip", where=str(path), found="a file", expected="the folder NAME.edge", fix="Sign the folder, then zip it"
        )  # fmt: skip
    opened = open_bundle(path)
    if new_key:
        write_keys(Path(key))
    public = sign_folder(opened.path, Path(key))
    written = str(path / "signature.json")
    return {"schema_version": SCHEMA_VERSION, "bundle": identify(path), "public_key": public, "signature": written}


def verify_signature(bundle: str | Path, key: str | Path) -> dict[str, Any]:
    """Check that a bundle is as it was signed, and by whom.

    Args:
        bundle: ``NAME.edge`` or a zip of one.
        key: PEM file of an Ed25519 public key.

    Returns:
        ``schema_version, bundle, public_key`` (hex digits).

    Raises:
        RunError: no signature, another key's, or a bundle that was changed.
    """
    opened = open_bundle(bundle)
    public = check_signature(opened.path, Path(key), str(bundle))
    return {"schema_version": SCHEMA_VERSION, "bundle": identify(bundle), "public_key": public}
