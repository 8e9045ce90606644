"""``timm:NAME``: an architecture of PyTorch Image Models."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from edgewise.exporter.architecture import Architecture, build
from edgewise.exporter.errors import ExportError
from edgewise.exporter.quiet import quiet
from edgewise.exporter.torchvision_schemas import make_torchvision_importable
from edgewise.runtime.extras import needs
from edgewise.runtime.tensors import TensorSpec


def import_timm() -> Any:
    """The package timm.

    Raises:
        MissingExtraError: it is not installed.
    """
    make_torchvision_importable()
    with quiet(), needs("timm"):
        import timm
    return timm


def build_timm(name: str, arguments: Mapping[str, Any]) -> Architecture:
    """Build a timm model without weights; its input size comes from its configuration.

    Raises:
        ExportError: timm has no such model (the nearest names are given), or it refuses the arguments.
        MissingExtraError: timm is not installed.
    """
    timm = import_timm()
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3, 0.5)
        raise ExportError(
            "timm has no such model",
            where=f"--arch timm:{name}",
            found=repr(name),
            expected=f"one of timm's names, such as {', '.join(near)}" if near else "one of timm's names",
            fix="List them with: python -c 'import timm; print(timm.list_models())'",
        )
    module = build(timm.create_model, f"timm:{name}", {"model_name": name, "pretrained": False, **arguments})
    size = timm.data.resolve_model_data_config(module)["input_size"]
    return Architecture(module, (TensorSpec("image", "float32", (1, *size)),))
