"""Signed bundles: what was signed loads, anything else does not."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

import edgewise
from edgewise.runtime import RunError
from edgewise.runtime.bundle import open_bundle, seal
from edgewise.runtime.signature import PINNED, write_keys
from edgewise.verbs.sign import sign, verify_signature


@pytest.fixture
def key(tmp_path: Path) -> Path:
    private = tmp_path / "key"
    write_keys(private)
    return private


@pytest.fixture
def signed(make_bundle: Any, key: Path) -> Path:
    path: Path = make_bundle()
    sign(path, key)
    return path


def test_what_was_signed_is_signed(signed: Path, key: Path, tmp_path: Path) -> None:
    public = key.with_name("key.pub")
    told = verify_signature(signed, public)
    assert told["public_key"] == json.loads((signed / "signature.json").read_text())["public_key"]
    assert edgewise.load(signed, threads=1).check()[0].sqnr_db > 100
    with zipfile.ZipFile(tmp_path / "net.zip", "w") as archive:
        for file in signed.rglob("*"):
            archive.write(file, Path("net.edge") / file.relative_to(signed))
    assert verify_signature(tmp_path / "net.zip", public)["public_key"] == told["public_key"]


def test_a_pinned_key_lets_only_its_own_bundles_load(
    signed: Path, key: Path, make_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PINNED, str(key.with_name("key.pub")))
    assert open_bundle(signed).manifest["name"] == "net"
    with pytest.raises(RunError, match="no signature"):
        open_bundle(make_bundle("plain"))
    write_keys(tmp_path / "other")
    monkeypatch.setenv(PINNED, str(tmp_path / "other.pub"))
    with pytest.raises(RunError, match="a signature by"):
        open_bundle(signed)
    monkeypatch.setenv(PINNED, str(tmp_path / "none.pub"))
    with pytest.raises(RunError, match="cannot read the key"):
        open_bundle(signed)


def test_a_tampered_bundle_does_not_load(signed: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = signed / "model.onnx"
    engine.write_bytes(engine.read_bytes()[:-1] + b"\0")
    with pytest.raises(RunError, match="changed since the build"):
        open_bundle(signed)
    # Someone who seals it again has other digests in the manifest, and no key to sign that.
    manifest = json.loads((signed / "manifest.json").read_text())
    signature = (signed / "signature.json").read_bytes()
    (signed / "signature.json").unlink()
    seal(signed, manifest)
    (signed / "signature.json").write_bytes(signature)
    assert open_bundle(signed)
    monkeypatch.setenv(PINNED, str(key.with_name("key.pub")))
    with pytest.raises(RunError, match="not the one that was signed"):
        open_bundle(signed)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema_version": 2}', '{"schema_version": 1, "algorithm": "ed25519", "public_key": 1}']
)
def test_a_signature_of_another_form_is_refused(signed: Path, key: Path, text: str) -> None:
    (signed / "signature.json").write_text(text)
    with pytest.raises(RunError, match=r"signature\.json"):
        verify_signature(signed, key.with_name("key.pub"))


def test_a_signature_that_is_no_hex_is_refused(signed: Path, key: Path) -> None:
    entry = json.loads((signed / "signature.json").read_text())
    (signed / "signature.json").write_text(json.dumps(entry | {"signature": "xyz"}))
    with pytest.raises(RunError, match="not the one that was signed"):
        verify_signature(signed, key.with_name("key.pub"))


def test_openssl_agrees_on_the_signature(signed: Path, key: Path, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl")
    raw = tmp_path / "raw"
    raw.write_bytes(bytes.fromhex(json.loads((signed / "signature.json").read_text())["signature"]))
    command = [openssl, "pkeyutl", "-verify", "-pubin", "-inkey", key.with_name("key.pub"), "-rawin"]
    command += ["-in", signed / "manifest.json", "-sigfile", raw]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_bad_keys_are_refused(signed: Path, key: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="a file that is there already"):
        write_keys(key)
    with pytest.raises(RunError, match="cannot read the key"):
        sign(signed, tmp_path / "missing")
    with pytest.raises(RunError, match="cannot read the key"):
        sign(signed, key.with_name("key.pub"))
    with pytest.raises(RunError, match="cannot read the key"):
        verify_signature(signed, key)
    assert key.stat().st_mode & 0o077 == 0


def test_a_zip_cannot_be_signed_and_a_damaged_bundle_is_not(signed: Path, key: Path, tmp_path: Path) -> None:
    (tmp_path / "net.edge.zip").write_bytes(b"PK")
    with pytest.raises(edgewise.EdgewiseError, match="cannot sign a zip"):
        sign(tmp_path / "net.edge.zip", key)
    (signed / "sub" / "recipe.yaml").write_text("other")
    with pytest.raises(RunError, match="changed since the build"):
        sign(signed, key)
