"""What a stage's result depends on besides its settings: files, data, versions and our own code."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import sys
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

import edgewise
from edgewise.places import split_place
from edgewise.runtime.storage import sha256_of

_PACKAGES = (
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
    "torch",
    "timm",
    "transformers",
    "coremltools",
    "tensorrt-rtx",
)
_LIBRARY = "edgewise.runtime._native"
_PACKAGE_FOLDERS = {"site-packages", "dist-packages"}


@cache
def versions() -> dict[str, str]:
    """Versions of edgewise, Python and the packages that can shape a result; those that are not installed are left out."""
    found = {"edgewise": edgewise.__version__, "python": ".".join(map(str, sys.version_info[:3]))}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@cache
def code_digest() -> str:
    """A digest of edgewise's own source and of libedgewise as compiled: a changed stage must not find the results of the old one."""
    digest = hashlib.sha256()
    library = importlib.util.find_spec(_LIBRARY)  # absent where there was no C++ compiler
    if library is not None and library.origin:
        digest.update(sha256_of(Path(library.origin)).encode())
    for part in ("", "exporter", "quantize", "runtime", "targets"):
        module = importlib.import_module(f"edgewise.{part}".rstrip("."))
        folder = Path(module.__file__ or "").parent
        for file in sorted(folder.rglob("*")):
            if file.suffix in (".py", ".toml"):
                digest.update(f"{part}/{file.relative_to(folder).as_posix()}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def key_of(stage: str, parts: dict[str, Any]) -> str:
    """The content hash that a stage's result is kept under."""
    told = {"stage": stage, "parts": parts, "versions": versions(), "code": code_digest()}
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def place_digest(text: str | None) -> str | None:
    """What a SOURCE, ``--arch`` or DATA is: the digest of a file; names, sizes and times of a folder; else the text itself.

    Python code that a text names is followed further by :func:`user_sources`, when it has run.
    """
    if text is None:
        return None
    prefix, path, suffix = split_place(text)
    place = Path(path)
    if not path or not place.exists():
        return text
    if place.is_file():
        return f"{prefix}{sha256_of(place)}{suffix}"
    digest = hashlib.sha256()
    for file in sorted(file for file in place.rglob("*") if file.is_file()):
        status = file.stat()
        digest.update(f"{file.relative_to(place).as_posix()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return f"{prefix}{digest.hexdigest()}{suffix}"


def digested(options: Any) -> Any:
    """Build options with the digest of each file that they name, beside the file's name."""
    if isinstance(options, dict):
        return {key: digested(value) for key, value in options.items()}
    if isinstance(options, list):
        return [digested(value) for value in options]
    return [options, place_digest(options)] if isinstance(options, str) and options else options


def user_sources() -> dict[str, str]:
    """Digests of the user's own Python files that are loaded: neither installed, nor of Python, nor ours.

    Packages also lie outside this environment, where it takes those of the system or of another one: PyTorch alone has thousands of files.
    """
    installed = _installed()
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not file or not file.endswith(".py") or name.split(".")[0] == "edgewise" or _is_under(file, installed):
            continue
        place = Path(file).resolve()
        if place.is_file() and not _is_under(str(place), installed):
            found[str(place)] = sha256_of(place)
    return found


@cache
def _installed() -> tuple[str, ...]:
    """Where Python and its packages lie, as it is written and as it resolves: a path is compared before it is resolved, which takes longer."""
    places = [sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    return tuple({f"{folder}{os.sep}" for place in places for folder in (place, str(Path(place).resolve()))})


def _is_under(file: str, installed: tuple[str, ...]) -> bool:
    return file.startswith(installed) or not _PACKAGE_FOLDERS.isdisjoint(Path(file).parts)
