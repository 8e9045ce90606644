"""Which line of the network's own code a node comes from."""

from __future__ import annotations

import re

import onnx_ir as ir

STACK = "pkg.torch.onnx.stack_trace"
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)(?:\n\s+(?P<code>.+))?')
_LIBRARY = re.compile(r"[/\\]torch[/\\]")
_PACKAGES = re.compile(r".*[/\\](?:site|dist)-packages[/\\]")


def location_of(node: ir.Node) -> str:
    """Such as ``vit_cifar.py:19 in forward: x = …``: the innermost line outside PyTorch, without this machine's folders.

    Empty when the node has no stack trace: it was made by a pass, or the network came as ONNX or TorchScript.
    """
    frames = list(_FRAME.finditer(node.metadata_props.get(STACK, "")))
    own = [frame for frame in frames if not _LIBRARY.search(frame["file"]) and "<eval_with_key>" not in frame["file"]]
    if not own:
        return ""
    frame = own[-1]
    shorter = _PACKAGES.sub("", frame["file"])
    file = shorter if shorter != frame["file"] else re.split(r"[/\\]", frame["file"])[-1]
    code = f": {frame['code'].strip()}" if frame["code"] else ""
    return f"{file}:{frame['line']} in {frame['function']}{code}"
