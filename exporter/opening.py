"""Find out what a source is, and open it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from edgewise.exporter.arch import build_architecture
from edgewise.exporter.checkpoint import read_state_dict
from edgewise.exporter.errors import ExportError
from edgewise.exporter.fuse import fuse_modules
from edgewise.exporter.hf_arch import as_source, open_hf
from edgewise.exporter.loading import load_weights
from edgewise.exporter.nearest import nearest_architecture
from edgewise.exporter.onnx_source import open_onnx
from edgewise.exporter.pt2 import open_pt2
from edgewise.exporter.sniff import kind_of
from edgewise.exporter.source import Source
from edgewise.exporter.torch_source import TorchSource, digest_of
from edgewise.exporter.torchscript import open_torchscript
from edgewise.runtime.storage import sha256_of
from edgewise.runtime.tensors import TensorSpec


def open_source(
    source: str | Path | torch.nn.Module,
    *,
    arch: str | None = None,
    arch_args: Mapping[str, Any] | None = None,
    inputs: Sequence[TensorSpec] = (),
    trust_pickle: bool = False,
    fuse: bool = True,
) -> Source:
    """Open a trained network. What a file is, its content says.

    Args:
        source: ``.pt2``, TorchScript, a state dict (``.pth/.th/.pt/.bin/.safetensors``, needs ``arch``), ``.onnx``, a local folder
            of Hugging Face (also as ``hf:DIR``), or a live module.
        arch: ``module:callable``, ``path.py:callable``, ``timm:NAME`` or ``hf:DIR``.
        arch_args: keyword arguments of the architecture.
        inputs: names, dtypes and shapes; strings are dynamic dims. Not needed where the source says it itself.
        trust_pickle: run the code in a pickle; without it only weights are read.
        fuse: merge the branches of modules that offer it.

    Raises:
        ExportError, RunError: the source or architecture cannot be read, or they do not fit each other.
        MissingExtraError: a package of an extra is not installed.
    """
    if isinstance(source, torch.nn.Module):
        return _from_module("module", source, digest_of(source.state_dict()), inputs, {}, fuse)
    folder = _hf_folder(source, arch)
    if folder is not None:
        return open_hf(folder, arch_args or {}, inputs)
    path = Path(source)
    match kind_of(path):
        case "onnx":
            return open_onnx(path, inputs)
        case "pt2":
            return open_pt2(path, inputs, trust_pickle=trust_pickle)
        case "torchscript":
            return open_torchscript(path, inputs)
        case kind:
            return _open_weights(path, kind, arch, arch_args or {}, inputs, trust_pickle, fuse)


def _hf_folder(source: str | Path, arch: str | None) -> Path | None:
    """The folder whose own weights are wanted: named itself, or by a weights file inside it beside ``--arch hf:DIR``."""
    text = str(source)
    if text.startswith("hf:"):
        return Path(text.removeprefix("hf:"))
    path = Path(source)
    if path.is_dir() and (path / "config.json").is_file():
        return path
    if arch is not None and arch.startswith("hf:") and path.is_file():
        folder = Path(arch.removeprefix("hf:"))
        return folder if path.resolve().parent == folder.resolve() else None
    return None


def _open_weights(
    path: Path,
    kind: str,
    arch: str | None,
    arch_args: Mapping[str, Any],
    inputs: Sequence[TensorSpec],
    trust_pickle: bool,
    fuse: bool,
) -> TorchSource:
    tensors, facts = read_state_dict(path, kind, trust_pickle=trust_pickle)
    if isinstance(tensors, torch.nn.Module):
        return _from_module("state_dict", tensors, sha256_of(path), inputs, facts | {"pickled": True}, fuse)
    if arch is None:
        raise _needs_arch(path, tensors)
    architecture = build_architecture(arch, arch_args)
    facts |= load_weights(architecture.module, tensors, str(path), arch)
    specs = inputs or architecture.inputs
    if arch.startswith("hf:"):
        return as_source(architecture.module.eval(), sha256_of(path), specs, facts)
    return _from_module("state_dict", architecture.module, sha256_of(path), specs, facts, fuse)


def _from_module(
    kind: str, module: torch.nn.Module, sha256: str, inputs: Sequence[TensorSpec], facts: dict[str, Any], fuse: bool
) -> TorchSource:
    if not inputs:
        raise ExportError(
            "the network does not say what its inputs look like",
            where=facts.get("arch", type(module).__name__),
            found="no --input",
            expected="their names, dtypes and shapes",
            fix="Pass --input NAME=f32[1,3,224,224], one for each (a name as a dim makes it dynamic)",
        )
    source = TorchSource(kind, sha256, list(inputs), facts, module.eval())
    if fuse:
        facts |= fuse_modules(source)
    return source


def _needs_arch(path: Path, tensors: Mapping[str, torch.Tensor]) -> ExportError:
    guess = nearest_architecture(tensors)
    return ExportError(
        "a state dict needs its architecture",
        where=str(path),
        found=f"{len(tensors)} tensors by name, no network" + (f"; they look like {guess}" if guess else ""),
        expected="--arch",
        fix="Pass --arch module:callable, path.py:callable, timm:NAME or hf:DIR",
    )
