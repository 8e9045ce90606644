"""``--arch``: ``module:callable``, ``path.py:callable``, ``timm:NAME`` or ``hf:DIR`` to a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from edgewise.exporter.architecture import Architecture, build
from edgewise.exporter.errors import ExportError
from edgewise.exporter.hf_arch import build_hf
from edgewise.exporter.timm_arch import build_timm
from edgewise.exporter.torchvision_schemas import make_torchvision_importable
from edgewise.runtime.callables import find_callable


def build_architecture(arch: str, arguments: Mapping[str, Any]) -> Architecture:
    """Build what ``--arch`` names, with keyword arguments.

    Raises:
        RunError: it has another form, does not import, or is not callable.
        ExportError: the callable fails or gives no ``torch.nn.Module``; an unknown name of timm, a folder that is not of Hugging Face.
        MissingExtraError: timm or transformers is not installed.
    """
    scheme, _, name = arch.partition(":")
    if scheme == "timm":
        return build_timm(name, arguments)
    if scheme == "hf":
        return build_hf(name, arguments)
    make_torchvision_importable()
    module = build(find_callable(arch, option="--arch"), arch, arguments)
    if not isinstance(module, torch.nn.Module):
        raise ExportError(
            "the architecture is not a network",
            where=f"--arch {arch}",
            found=f"{type(module).__name__} returned",
            expected="a torch.nn.Module",
            fix="Name a class or a function that returns the network",
        )
    return Architecture(module)
