"""Weights out of a checkpoint file, without running any code that may be in it."""

from __future__ import annotations

import argparse
import pickle
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path, PosixPath, PurePosixPath
from types import SimpleNamespace
from typing import Any

import torch

from edgewise.exporter.errors import ExportError, first_line
from edgewise.exporter.quiet import quiet
from edgewise.runtime.extras import needs

# In order of preference: an exponential moving average is what its authors evaluate.
WRAPPERS = (
    "state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema",
    "state_dict", "model_state_dict", "model", "net", "network", "params", "weights", "module", "generator",
)  # fmt: skip
# Plain records that training scripts save beside the weights; building them runs nothing.
_HARMLESS: list[Any] = [argparse.Namespace, SimpleNamespace, PosixPath, PurePosixPath, defaultdict, dict]
_GLOBAL = re.compile(r"(?:GLOBAL|global)\s+`?([\w.]+)")

Tensors = dict[str, torch.Tensor]


def read_state_dict(
    path: Path, kind: str, *, trust_pickle: bool = False
) -> tuple[Tensors | torch.nn.Module, dict[str, Any]]:
    """Read weights by name from a pickle of ``torch.save`` (``kind`` ``state_dict``) or from ``safetensors``; storages of any device come to the CPU.

    Returns:
        The tensors (or the whole module, which only a trusted pickle can hold), and facts: the wrappers taken off.

    Raises:
        ExportError: the file is cut, holds code, or no weights.
    """
    content = _read_safetensors(path) if kind == "safetensors" else _read_pickle(path, trust_pickle)
    return unwrap(content, path)


def unwrap(content: Any, path: Path) -> tuple[Tensors | torch.nn.Module, dict[str, Any]]:
    """Take off dictionaries such as ``{"state_dict": …, "epoch": …}`` until the tensors come."""
    taken: list[str] = []
    while isinstance(content, Mapping) and not _holds_tensors(content):
        known = [key for key in WRAPPERS if isinstance(content.get(key), Mapping | torch.nn.Module)]
        others = [key for key, value in content.items() if isinstance(value, Mapping) and _holds_tensors(value)]
        if not known and len(others) != 1:
            several = f", of which {_listing(others)} hold tensors" if others else ""
            raise _no_weights(path, f"a dictionary with the keys {_listing(content)}{several}")
        key = (known or others)[0]
        taken.append(key)
        content = content[key]
    facts = {"wrappers": taken} if taken else {}
    if isinstance(content, torch.nn.Module):
        return content, facts
    if not isinstance(content, Mapping):
        raise _no_weights(path, f"an object of type {type(content).__name__}")
    return {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}, facts


def _holds_tensors(content: Mapping[Any, Any]) -> bool:
    tensors = sum(isinstance(value, torch.Tensor) for value in content.values())
    return tensors > 0 and not any(isinstance(content.get(key), Mapping) for key in WRAPPERS)


def _read_safetensors(path: Path) -> Tensors:
    with needs("export"):
        import safetensors
        from safetensors.torch import load_file
    try:
        return dict(load_file(path))
    except (safetensors.SafetensorError, ValueError) as error:
        raise _cut(path, first_line(error)) from error


def _read_pickle(path: Path, trust: bool) -> Any:
    try:
        with torch.serialization.safe_globals(_HARMLESS), quiet():
            return torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as error:
        raise _holds_code(path, str(error)) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        raise _cut(path, first_line(error)) from error
    except (AttributeError, ImportError) as error:
        raise ExportError(
            "the checkpoint needs code that is not here",
            where=str(path),
            found=first_line(error),
            expected="its classes to be importable",
            fix="Run where the training code can be imported, or save model.state_dict() there",
        ) from error


def _holds_code(path: Path, message: str) -> ExportError:
    match = _GLOBAL.search(message)
    name = match[1] if match else ""
    return ExportError(
        "the checkpoint holds more than weights",
        where=str(path),
        found=f"a pickle that refers to {name}" if name else "a pickle that is not one of weights alone",
        expected="tensors by name (a state dict)",
        fix="Save model.state_dict() instead; if you trust the file's origin, pass --trust-pickle, which runs the code in it",
    )


def _cut(path: Path, found: str) -> ExportError:
    return ExportError(
        "cannot read the checkpoint",
        where=str(path),
        found=f"{path.stat().st_size} bytes that do not decode ({found})",
        expected="a whole checkpoint",
        fix="The file is probably cut: download or copy it again",
    )


def _no_weights(path: Path, found: str) -> ExportError:
    return ExportError(
        "the checkpoint holds no weights",
        where=str(path),
        found=found,
        expected="tensors by name, possibly under one key such as state_dict, model or ema",
        fix="Save model.state_dict() to a file of its own",
    )


def _listing(content: Iterable[Any]) -> str:
    keys = [str(key) for key in content]
    return ", ".join(keys[:6]) + (" …" if len(keys) > 6 else "")
