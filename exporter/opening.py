"""Find out what a source is, and open it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from edgewise.exporter.arch import build_architecture
from edgewise.exporter.checkpoint import read_state_dict
from edgewise.exporter.errors import ExportError
from edgewise.exporter.loading import load_weights
from edgewise.exporter.onnx_source import open_onnx
from edgewise.exporter.source import Source
from edgewise.exporter.torch_source import TorchSource, digest_of
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
    """Open a trained network."""
    if isinstance(source, torch.nn.Module):
        return TorchSource("module", digest_of(source.state_dict()), list(inputs), {}, source.eval())
    path = Path(source)
    if path.suffix == ".onnx":
        return open_onnx(path, inputs)
    if arch is None:
        raise ExportError("needs --arch")
    tensors, facts = read_state_dict(path, trust_pickle=trust_pickle)
    architecture = build_architecture(arch, arch_args or {})
    facts |= load_weights(architecture.module, tensors, str(path), arch)
    specs = list(inputs) or list(architecture.inputs)
    if not specs:
        raise ExportError("needs --input")
    return TorchSource("state_dict", sha256_of(path), specs, facts, architecture.module.eval())
