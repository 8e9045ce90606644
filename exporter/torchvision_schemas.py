"""torchvision beside a CPU-only torch."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from importlib.machinery import PathFinder

import torch

_SCHEMAS = ("nms", "qnms")
_libraries: list[torch.library.Library] = []  # a library's definitions go when it does


@cache
def make_torchvision_importable() -> None:
    """Let torchvision, if it is installed, be imported even where it has no compiled operators for this torch.

    timm, transformers and many networks import a few Python layers of it. The wheel on PyPI is compiled for CUDA; beside a CPU-only
    torch its operators do not load, and its import then fails for want of their schemas, which are defined here. It is not imported:
    that takes seconds, and many networks do without.
    """
    if "torchvision" in sys.modules:
        return
    found = importlib.util.find_spec("torchvision")
    if found is not None and not _operators_load(list(found.submodule_search_locations or [])):
        _define_schemas()


def _operators_load(folders: list[str]) -> bool:
    compiled = PathFinder.find_spec("_C", folders)
    if compiled is None or compiled.origin is None:
        return False
    try:
        torch.ops.load_library(compiled.origin)  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True


def _define_schemas() -> None:
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in _SCHEMAS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    _libraries.append(library)
