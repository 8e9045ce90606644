"""``--arch``: ``module:callable``, ``path.py:callable``, ``timm:NAME`` or ``hf:DIR`` to a module."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from edgewise.exporter.errors import ExportError
from edgewise.exporter.quiet import quiet
from edgewise.exporter.torch_source import first_line
from edgewise.runtime.tensors import TensorSpec


@dataclass(frozen=True)
class Architecture:
    """A built network, and the inputs that it states by itself (none for a plain callable)."""

    module: torch.nn.Module
    inputs: tuple[TensorSpec, ...] = ()


def build_architecture(arch: str, arguments: Mapping[str, Any]) -> Architecture:
    """Build what ``--arch`` names, with keyword arguments.

    Raises:
        ExportError: it has another form, does not import, is not callable, fails, or gives no ``torch.nn.Module``.
        MissingExtraError: timm or transformers is not installed.
    """
    scheme, _, name = arch.partition(":")
    if scheme == "timm":
        from edgewise.exporter.timm_arch import build_timm

        return build_timm(name, arguments)
    if scheme == "hf":
        from edgewise.exporter.hf_arch import build_hf

        return build_hf(name, arguments)
    module = _call(_find(arch), arch, arguments)
    if not isinstance(module, torch.nn.Module):
        raise ExportError(
            "the architecture is not a network",
            where=f"--arch {arch}",
            found=f"{type(module).__name__} returned",
            expected="a torch.nn.Module",
            fix="Name a class or a function that returns the network",
        )
    return Architecture(module)


def _call(maker: Callable[..., Any], arch: str, arguments: Mapping[str, Any]) -> Any:
    with quiet():
        try:
            return maker(**arguments)
        except Exception as error:  # whatever the user's own code raises
            raise ExportError(
                "cannot build the architecture",
                where=f"--arch {arch}",
                found=f"{type(error).__name__}: {first_line(error)}",
                expected=f"a callable that takes {', '.join(arguments) or 'no arguments'}",
                fix="Pass its arguments with --arch-args NAME=VALUE, or name a function that needs none",
            ) from error


def _find(arch: str) -> Callable[..., Any]:
    place, colon, name = arch.rpartition(":")
    if not colon or not place or not name:
        raise ExportError(
            "cannot read --arch",
            where=f"--arch {arch}",
            found=repr(arch),
            expected="module:callable, path.py:callable, timm:NAME or hf:DIR",
            fix="Write it in one of these forms",
        )
    found: Any = _import_file(Path(place), arch) if place.endswith(".py") else _import_module(place, arch)
    for part in name.split("."):
        if not hasattr(found, part):
            names = [entry for entry in vars(found) if callable(getattr(found, entry)) and not entry.startswith("_")]
            raise ExportError(
                "no such architecture",
                where=f"--arch {arch}",
                found=f"no {name!r} in {place}",
                expected=f"one of {', '.join(names[:10]) or 'its callables'}",
                fix="Check the name behind the colon",
            )
        found = getattr(found, part)
    if not callable(found):
        raise ExportError(
            "the architecture cannot be called",
            where=f"--arch {arch}",
            found=type(found).__name__,
            expected="a class or a function",
            fix="Name what builds the network",
        )
    return found  # type: ignore[no-any-return]


def _import_file(path: Path, arch: str) -> Any:
    if not path.is_file():
        raise ExportError(
            "cannot import the architecture",
            where=f"--arch {arch}",
            found=f"no file {path}",
            expected="a Python file",
            fix="Check the path before the colon",
        )
    name = f"_edgewise_arch_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise _unimportable(arch, "a file that Python cannot load")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up here
    sys.path.insert(0, str(path.parent.resolve()))  # its own neighbours
    try:
        with quiet():
            spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's own code raises
        del sys.modules[name]
        raise _unimportable(arch, f"{type(error).__name__}: {first_line(error)}") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def _import_module(name: str, arch: str) -> Any:
    try:
        with quiet():
            return importlib.import_module(name)
    except Exception as error:  # whatever the user's own code raises
        raise _unimportable(arch, f"{type(error).__name__}: {first_line(error)}") from error


def _unimportable(arch: str, found: str) -> ExportError:
    return ExportError(
        "cannot import the architecture",
        where=f"--arch {arch}",
        found=found,
        expected="Python that imports",
        fix="Fix the import, or install what it needs",
    )
