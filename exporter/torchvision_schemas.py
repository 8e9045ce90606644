"""torchvision beside a CPU-only torch."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache

import torch

from edgewise.exporter.quiet import quiet

_SCHEMAS = ("nms", "qnms")
_libraries: list[torch.library.Library] = []  # a library's definitions go when it does


@cache
def make_torchvision_importable() -> None:
    """Import torchvision, if it is installed, even where it has no compiled operators for this torch.

    timm, transformers and many networks import a few Python layers of it. The wheel on PyPI is compiled for CUDA; beside a CPU-only
    torch its operators do not load, and it then fails for want of their schemas: with the schemas defined it imports.
    """
    if importlib.util.find_spec("torchvision") is None:
        return
    with quiet():
        try:
            importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::" not in str(error):
                raise
            _define_schemas()
            importlib.import_module("torchvision")


def _define_schemas() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # half imported
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in _SCHEMAS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    _libraries.append(library)
