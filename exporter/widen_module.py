"""A module in bfloat16 as one in float32 (``in_float32.py`` says why)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

_NARROW, _WIDE = torch.bfloat16, torch.float32


def widen_module(module: Callable[..., Any]) -> Callable[..., Any] | None:
    """A copy of a module that computes in float32, which holds every bfloat16; None where nothing in it is bfloat16.

    Weights and buffers become float32, and so do dtypes that a traced graph names. What ``forward`` of a module of Python code casts to
    bfloat16 by name stays so.
    """
    if not isinstance(module, torch.nn.Module) or not _is_narrow(module):
        return None
    wide = copy.deepcopy(module)
    with torch.no_grad():
        for weight in wide.parameters():
            if weight.dtype is _NARROW:
                weight.data = weight.data.to(_WIDE)
        for part in wide.modules():
            for name, buffer in part.named_buffers(recurse=False):
                if buffer.dtype is _NARROW:
                    setattr(part, name, buffer.to(_WIDE))
            if isinstance(part, torch.fx.GraphModule):
                _widen_traced(part)
    return wide


def _is_narrow(module: torch.nn.Module) -> bool:
    tensors = [*module.parameters(), *module.buffers()]
    traced = [node for part in module.modules() if isinstance(part, torch.fx.GraphModule) for node in part.graph.nodes]
    return any(tensor.dtype is _NARROW for tensor in tensors) or any(_names_narrow(node) for node in traced)


def _names_narrow(node: torch.fx.Node) -> bool:
    found = False

    def look(value: Any) -> Any:
        nonlocal found
        found = found or value is _NARROW
        return value

    torch.fx.node.map_aggregate((node.args, node.kwargs), look)
    return found


def _widen_traced(graph: torch.fx.GraphModule) -> None:
    """Casts and constants of a traced graph name dtypes."""

    def wide(value: Any) -> Any:
        return _WIDE if value is _NARROW else value

    for node in graph.graph.nodes:
        if _names_narrow(node):
            node.args = torch.fx.node.map_aggregate(node.args, wide)
            node.kwargs = torch.fx.node.map_aggregate(node.kwargs, wide)
    graph.recompile()
