"""What a file is, by its content: names lie, and an error page saved as ``model.pth`` is common."""

from __future__ import annotations

import zipfile
from pathlib import Path

from edgewise.exporter.errors import ExportError

_PICKLE = b"\x80"
_ZIP = b"PK\x03\x04"
_LEGACY_TAR = b"ustar"


def kind_of(path: Path) -> str:
    """``onnx``, ``pt2``, ``torchscript``, ``state_dict`` (a pickle of ``torch.save``) or ``safetensors``.

    Raises:
        ExportError: no such file, an empty or cut one, a web page, a Git LFS pointer, or something else.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise _unreadable(path, found, "Check the path (a folder of Hugging Face needs its config.json)")
    with path.open("rb") as file:
        head = file.read(512)
    text = head.lstrip().lower()
    if not head:
        raise _unreadable(path, "an empty file", "Download or copy it again")
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise _unreadable(
            path, "a web page (HTML)", "The download gave a page instead of the file: fetch the file itself"
        )
    if text.startswith(b"version https://git-lfs"):
        raise _unreadable(path, "a Git LFS pointer", "Fetch the real file with: git lfs pull")
    if head.startswith(_ZIP):
        return _kind_of_zip(path)
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return "safetensors"
    if path.suffix == ".onnx" or head[:1] == b"\x08":  # field 1 (ir_version) of a ModelProto
        return "onnx"
    if head.startswith(_PICKLE) or head[257:262] == _LEGACY_TAR:
        return "state_dict"
    raise _unreadable(path, f"a file that begins with {head[:8]!r}", "Download or copy it again, or convert it to ONNX")


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] or name for name in archive.namelist()]
    except zipfile.BadZipFile as error:
        raise _unreadable(
            path, f"a zip archive cut at {path.stat().st_size} bytes", "Download or copy it again"
        ) from error
    if any(name.startswith("models/") and name.endswith(".json") for name in names) or any(
        name.endswith("serialized_exported_program.json") for name in names
    ):
        return "pt2"
    if "data.pkl" in names:
        return "torchscript" if any(name.startswith("code/") for name in names) else "state_dict"
    raise _unreadable(path, "a zip archive that PyTorch did not write", "Give the checkpoint inside it")


def _unreadable(path: Path, found: str, fix: str) -> ExportError:
    return ExportError(
        "cannot read the network",
        where=str(path),
        found=found,
        expected="a .pt2, TorchScript, .pth/.th/.pt/.bin, .safetensors or .onnx file",
        fix=fix,
    )
