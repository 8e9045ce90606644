"""Which line of the network's own code a node comes from."""

from __future__ import annotations

import os
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import onnx_ir as ir

STACK = "pkg.torch.onnx.stack_trace"
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)(?:\n\s+(?P<code>.+))?')
_PACKAGES = re.compile(r".*[/\\](?:site|dist)-packages[/\\]")


def location_of(node: ir.Node) -> str:
    """Such as ``vit_cifar.py:19 in forward: x = …``: the innermost line outside PyTorch, without this machine's folders.

    Empty when the node has no stack trace: it was made by a pass, or the network came as ONNX or TorchScript.
    """
    frames = list(_FRAME.finditer(node.metadata_props.get(STACK, "")))
    own = [frame for frame in frames if is_own_file(frame["file"])]
    if not own:
        return ""
    frame = own[-1]
    code = f": {frame['code'].strip()}" if frame["code"] else ""
    return f"{short_file(frame['file'])}:{frame['line']} in {frame['function']}{code}"


def is_own_file(file: str) -> bool:
    """Whether a frame's file belongs to the network, and not to PyTorch or to this package."""
    return not file.startswith(("<", *_libraries()))


@cache
def _libraries() -> tuple[str, ...]:
    """Folders of PyTorch and of this package, found without importing PyTorch: that takes seconds, and an ONNX file needs none of it."""
    specs = (find_spec(package) for package in ("torch", "onnxscript"))
    found = [folder for spec in specs if spec for folder in spec.submodule_search_locations or ()]
    return tuple(folder + os.sep for folder in (*found, str(Path(__file__).parent)))


def short_file(file: str) -> str:
    """A file without this machine's folders: a package's own path, else the bare name."""
    shorter = _PACKAGES.sub("", file)
    return shorter if shorter != file else re.split(r"[/\\]", file)[-1]
