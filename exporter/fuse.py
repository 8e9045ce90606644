"""Merge the branches of modules that offer it, on a copy, and only where the outputs stay."""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch

from edgewise.exporter.errors import first_line
from edgewise.exporter.quiet import quiet
from edgewise.exporter.samples import dynamic_sizes, random_samples
from edgewise.exporter.torch_source import TorchSource
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.errors import EdgewiseError

METHODS = ("reparameterize", "switch_to_deploy", "fuse")
_MIN_SQNR_DB = 70.0
# What a module's own code may raise when it cannot merge.
_OWN_CODE = (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, LookupError, ImportError)


def fuse_modules(source: TorchSource) -> dict[str, Any]:
    """Re-parameterise what offers ``reparameterize``, ``switch_to_deploy`` or ``fuse`` (RepVGG, MobileOne, RepViT, LeViT …).

    Works class by class on a copy: each class's modules are merged together, the outputs compared, and taken back when they
    changed. The source keeps computing the unmerged network, so that the export's own comparison covers the merging too.

    Returns:
        Facts: ``fused`` with the number of modules by ``Class.method``, ``not_fused`` with reasons; empty when none offers it.
    """
    module = source.module
    if not isinstance(module, torch.nn.Module):
        return {}
    held = torch.nn.ModuleList([module])  # so that the network itself can be put in another's place too
    offers = _classes(held)
    if not offers:
        return {}
    sizes, _ = dynamic_sizes(source.inputs)
    sample = random_samples(source, sizes, 1, seed=0)[0]
    want = source.run(sample)
    fused: Counter[str] = Counter()
    refused: dict[str, str] = {}
    for kind, method in offers:
        candidate = copy.deepcopy(held)
        try:
            with quiet(), torch.no_grad():
                count = _merge(candidate, kind, method)
            have = replace(source, module=candidate[0], facts={}).run(sample)
            worst = min(parity.sqnr_db for parity in compare_outputs([want], [have]))
        except (*_OWN_CODE, EdgewiseError) as error:
            refused[f"{kind.__name__}.{method}"] = f"{type(error).__name__}: {first_line(error)}"
            continue
        if worst < _MIN_SQNR_DB:
            refused[f"{kind.__name__}.{method}"] = f"it changes the outputs: {worst:.1f} dB SQNR"
        elif count:
            fused[f"{kind.__name__}.{method}"] += count
            held = candidate
    if fused:
        merged = held[0]
        source.tracing = lambda _: nullcontext(merged)
    return {"fused": dict(fused)} | ({"not_fused": refused} if refused else {})


def _offers(module: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, str, torch.nn.Module, str]]:
    """Every module that offers merging, with its parent, its name there and the method; parents before children."""
    for name, child in module.named_children():
        method = next((method for method in METHODS if _is_callable_alone(child, method)), None)
        if method is not None:
            yield module, name, child, method
        yield from _offers(child)


def _classes(module: torch.nn.Module) -> list[tuple[type, str]]:
    """The classes that offer merging, with the method; a class that holds others of them first, for it merges them by itself."""
    heights: Counter[tuple[type, str]] = Counter()
    for _, _, child, method in _offers(module):
        heights[type(child), method] = max(heights[type(child), method], 1 + sum(1 for _ in _offers(child)))
    return sorted(heights, key=lambda entry: -heights[entry])


def _is_callable_alone(module: torch.nn.Module, method: str) -> bool:
    function = getattr(type(module), method, None)
    if function is None or not callable(function):
        return False
    needed = [
        entry
        for entry in list(inspect.signature(function).parameters.values())[1:]
        if entry.default is entry.empty and entry.kind not in (entry.VAR_POSITIONAL, entry.VAR_KEYWORD)
    ]
    return not needed


def _merge(module: torch.nn.Module, kind: type, method: str) -> int:
    """Merge all modules of one class; a method that returns a module has it put in the place of the old one."""
    count = 0
    for parent, name, child, offered in list(_offers(module)):
        if type(child) is kind and offered == method:
            result = getattr(child, method)()
            count += 1
            if isinstance(result, torch.nn.Module) and result is not child:
                setattr(parent, name, result.eval())
    return count
