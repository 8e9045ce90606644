"""Put weights into an architecture, and say precisely where they do not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from edgewise.exporter.errors import ExportError
from edgewise.exporter.nearest import nearest_architecture

# Written by training tools into state dicts; nothing of the network.
_BOOKKEEPING = ("num_batches_tracked", "total_ops", "total_params", "n_averaged")


def load_weights(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], where: str, arch: str) -> dict[str, Any]:
    """Load weights strictly; prefixes such as ``module.`` that the architecture lacks are taken off.

    Returns:
        Facts: ``prefixes`` taken off, ``left_out`` parts that the architecture lacks (beside the one that fits), ``ignored``
        entries: bookkeeping, and buffers that the network computes by itself.

    Raises:
        ExportError: names or shapes do not fit; names the first ones.
    """
    own = module.state_dict()
    named, prefixes = strip_prefixes(tensors, own)
    named, inner, left_out = take_part(named, own)
    prefixes += inner
    buffers = dict(module.named_buffers())
    ignored = [key for key in named if key not in own and _is_known(key, named[key], buffers)]
    named = {key: tensor for key, tensor in named.items() if key not in ignored}
    missing = [key for key in own if key not in named and key.rsplit(".", 1)[-1] not in _BOOKKEEPING]
    unexpected = [key for key in named if key not in own]
    if missing or unexpected:
        raise _other_names(where, arch, missing, unexpected, named)
    for key, tensor in named.items():
        if tensor.shape != own[key].shape:
            raise _other_shape(where, arch, key, tensor, own[key])
    module.load_state_dict(named, strict=False)
    facts: dict[str, Any] = {"arch": arch, "tensors": len(named)}
    if prefixes:
        facts["prefixes"] = prefixes
    if left_out:
        facts["left_out"] = left_out
    if ignored:
        facts["ignored"] = sorted({key.rsplit(".", 1)[-1] for key in ignored})
    return facts


def _is_known(key: str, tensor: torch.Tensor, buffers: Mapping[str, torch.Tensor]) -> bool:
    """Whether an entry is bookkeeping, or a buffer that the network computes by itself (older versions of it saved them)."""
    if key.rsplit(".", 1)[-1] in _BOOKKEEPING:
        return True
    own = buffers.get(key)
    return own is not None and own.shape == tensor.shape and torch.equal(own, tensor.to(own.dtype))


def strip_prefixes(
    tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Take off leading components (``module.``, ``_orig_mod.``, ``model.``) while that makes more names fit."""
    named, taken = dict(tensors), list[str]()
    while True:
        heads = {key.split(".", 1)[0] for key in named if key not in _BOOKKEEPING}
        if len(heads) != 1 or any("." not in key for key in named if key not in _BOOKKEEPING):
            return named, taken
        head = heads.pop()
        if any(key.startswith(f"{head}.") for key in own):
            return named, taken
        named = {key.removeprefix(f"{head}."): tensor for key, tensor in named.items()}
        taken.append(f"{head}.")


def take_part(
    tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], list[str], list[str]]:
    """Where one part (``bert.`` beside ``classifier.``) fits the architecture better than the whole, take that part.

    Returns:
        The tensors, the prefix taken off (none or one), and the names of the other parts.
    """
    fitting = Counter(
        ".".join(parts[:start]) + "."
        for parts in (key.split(".") for key in tensors)
        for start in range(1, len(parts))
        if ".".join(parts[start:]) in own
    )
    if not fitting:
        return dict(tensors), [], []
    prefix, count = min(fitting.items(), key=lambda entry: (-entry[1], entry[0]))
    if count <= sum(key in own for key in tensors):
        return dict(tensors), [], []
    part = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    others = sorted({key.split(".", 1)[0] for key in tensors if not key.startswith(prefix)})
    return part, [prefix], others


def _other_names(
    where: str, arch: str, missing: list[str], unexpected: list[str], named: Mapping[str, torch.Tensor]
) -> ExportError:
    parts = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{' …' if len(names) > 3 else ''})"
        for kind, names in (("missing", missing), ("unexpected", unexpected))
        if names
    ]
    guess = nearest_architecture(named)
    return ExportError(
        "the weights do not fit the architecture",
        where=f"{where}, --arch {arch}",
        found=" and ".join(parts) + (f"; they look like {guess}" if guess else ""),
        expected="the architecture's own names",
        fix="Choose the architecture that the weights were trained with",
    )


def _other_shape(where: str, arch: str, key: str, tensor: torch.Tensor, own: torch.Tensor) -> ExportError:
    return ExportError(
        "a weight does not fit the architecture",
        where=f"{where}, --arch {arch}, {key}",
        found=f"shape {list(tensor.shape)}",
        expected=str(list(own.shape)),
        fix="Choose the variant that the weights were trained with, or pass its arguments (such as num_classes)",
    )
