"""Find out what a source is, and open it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise.exporter.sniff import kind_of
from edgewise.exporter.source import Source
from edgewise.runtime.extras import needs
from edgewise.runtime.tensors import TensorSpec

if TYPE_CHECKING:
    import torch


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
    if not isinstance(source, str | Path):
        with needs("export"):
            from edgewise.exporter.torch_opening import open_module
        return open_module(source, inputs, fuse=fuse)
    folder = _hf_folder(source, arch)
    if folder is not None:
        with needs("export"):
            from edgewise.exporter.hf_arch import open_hf
        return open_hf(folder, arch_args or {}, inputs)
    path = Path(source)
    kind = kind_of(path)
    if kind == "onnx":
        from edgewise.exporter.onnx_source import open_onnx

        return open_onnx(path, inputs)
    with needs("export"):
        from edgewise.exporter.torch_opening import open_file
    return open_file(path, kind, arch, arch_args or {}, inputs, trust_pickle=trust_pickle, fuse=fuse)


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
