"""Open what PyTorch computes. Apart from ``opening.py``, since importing PyTorch takes seconds that an ONNX file need not wait for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from edgewise.exporter.arch import build_architecture
from edgewise.exporter.checkpoint import read_state_dict
from edgewise.exporter.errors import ExportError
from edgewise.exporter.fuse import fuse_modules
from edgewise.exporter.hf_arch import as_source
from edgewise.exporter.loading import load_weights
from edgewise.exporter.nearest import nearest_architecture
from edgewise.exporter.pt2 import open_pt2
from edgewise.exporter.torch_source import TorchSource, digest_of
from edgewise.exporter.torchscript import open_torchscript
from edgewise.runtime.storage import sha256_of
from edgewise.runtime.tensors import TensorSpec


def open_module(module: torch.nn.Module, inputs: Sequence[TensorSpec], *, fuse: bool) -> TorchSource:
    """A live module; see :func:`edgewise.exporter.open_source`."""
    return _from_module("module", module, digest_of(module.state_dict()), inputs, {}, fuse)


def open_file(
    path: Path,
    kind: str,
    arch: str | None,
    arch_args: Mapping[str, Any],
    inputs: Sequence[TensorSpec],
    *,
    trust_pickle: bool,
    fuse: bool,
) -> TorchSource:
    """A file of a ``kind`` of :func:`edgewise.exporter.sniff.kind_of` other than ``onnx``; see :func:`edgewise.exporter.open_source`."""
    if kind == "pt2":
        return open_pt2(path, inputs, trust_pickle=trust_pickle)
    if kind == "torchscript":
        return open_torchscript(path, inputs)
    return _open_weights(path, kind, arch, arch_args, inputs, trust_pickle, fuse)


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
