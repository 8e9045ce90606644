"""Who made a bundle: an Ed25519 signature (RFC 8032) over ``manifest.json``, which holds the digest of every other file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise.runtime.errors import RunError
from edgewise.runtime.extras import needs
from edgewise.runtime.manifest import MANIFEST, SIGNATURE
from edgewise.runtime.storage import whole_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SCHEMA_VERSION = 1
_ALGORITHM = "ed25519"
_LARGEST_BYTES = 1 << 16
# A file of a public key: then every bundle that is opened must be signed by it.
PINNED = "EDGEWISE_PUBLIC_KEY"


def sign_folder(folder: Path, key: Path) -> str:
    """Write ``signature.json`` into a bundle's folder.

    Args:
        folder: of an opened bundle, whose digests hold.
        key: the private key, PEM (PKCS 8) without a passphrase.

    Returns:
        The public key as hex digits.

    Raises:
        RunError: the key cannot be read, or the folder not be written.
    """
    private = _private_key(key)
    public = private.public_key().public_bytes_raw().hex()
    signature = private.sign((folder / MANIFEST).read_bytes()).hex()
    entry = {"schema_version": SCHEMA_VERSION, "algorithm": _ALGORITHM, "public_key": public, "signature": signature}
    with whole_file(folder / SIGNATURE) as draft:
        draft.write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")
    return public


def check_signature(folder: Path, key: Path, where: str) -> str:
    """Check that a bundle's manifest was signed by a key; its digests are checked when it is opened.

    Returns:
        The public key as hex digits.

    Raises:
        RunError: no signature, one by another key, or one of another manifest.
    """
    with needs("sign"):
        from cryptography.exceptions import InvalidSignature
    public = _public_key(key)
    entry = _read(folder / SIGNATURE, where)
    wanted = public.public_bytes_raw().hex()
    if entry["public_key"] != wanted:
        raise _untrusted(where, f"a signature by {entry['public_key'][:16]}…", f"one by {wanted[:16]}… ({key})")
    try:
        public.verify(bytes.fromhex(entry["signature"]), (folder / MANIFEST).read_bytes())
    except (InvalidSignature, ValueError) as error:
        raise _untrusted(
            where, f"a {MANIFEST} that is not the one that was signed", f"the one signed by {key}"
        ) from error
    return wanted


def pinned_key() -> Path | None:
    """The key that ``EDGEWISE_PUBLIC_KEY`` names, by which every bundle must be signed; None without it."""
    named = os.environ.get(PINNED)
    return Path(named) if named else None


def write_keys(private: Path) -> Path:
    """Make a key pair: the private key, readable by its owner alone, and ``NAME.pub`` beside it; gives the latter's path.

    Raises:
        RunError: there is a file already, or the folder cannot be written.
    """
    with needs("sign"):
        from cryptography.hazmat.primitives import serialization as form
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    public = private.with_name(private.name + ".pub")
    for file in (private, public):
        if file.exists():
            raise RunError(
                "cannot make a key", where=str(file), found="a file that is there already", expected="a new name",
                fix="Choose another name; a key that is overwritten is lost",
            )  # fmt: skip
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    with whole_file(private) as draft:
        draft.write_bytes(pem)
    private.chmod(0o600)
    with whole_file(public) as draft:
        draft.write_bytes(key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
    return public


def _read(file: Path, where: str) -> dict[str, Any]:
    if not file.is_file():
        raise _untrusted(where, "no signature", f"a bundle with {SIGNATURE}")
    try:
        if file.stat().st_size > _LARGEST_BYTES:
            raise ValueError
        entry = json.loads(file.read_text(encoding="utf-8"))
        fine = entry["schema_version"] == SCHEMA_VERSION and entry["algorithm"] == _ALGORITHM
        fine = fine and all(isinstance(entry[key], str) for key in ("public_key", "signature"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _untrusted(where, f"a {SIGNATURE} that cannot be read", "one as `edgewise sign` writes it") from error
    if not fine:
        raise _untrusted(where, f"a {SIGNATURE} of another form", "one as `edgewise sign` writes it")
    read: dict[str, Any] = entry
    return read


def _private_key(file: Path) -> Ed25519PrivateKey:
    with needs("sign"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise _bad_key(file, str(error), "an Ed25519 private key as PEM, without a passphrase") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _bad_key(file, type(key).__name__, "an Ed25519 private key")
    return key


def _public_key(file: Path) -> Ed25519PublicKey:
    with needs("sign"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    try:
        key = load_pem_public_key(file.read_bytes())
    except (OSError, ValueError) as error:
        raise _bad_key(file, str(error), "an Ed25519 public key as PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise _bad_key(file, type(key).__name__, "an Ed25519 public key")
    return key


def _bad_key(file: Path, found: str, expected: str) -> RunError:
    return RunError(
        "cannot read the key", where=str(file), found=" ".join(found.split()), expected=expected,
        fix="Make a pair with `edgewise sign --new-key`, or with `openssl genpkey -algorithm ed25519`",
    )  # fmt: skip


def _untrusted(where: str, found: str, expected: str) -> RunError:
    return RunError(
        "the bundle is not signed by the key that is asked for", where=where, found=found, expected=expected,
        fix="Do not run it; get it again from whom you trust, or have it signed with `edgewise sign`",
    )  # fmt: skip
