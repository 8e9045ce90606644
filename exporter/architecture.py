"""A network without its weights, and how user code that makes one is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from edgewise.exporter.errors import ExportError, first_line
from edgewise.exporter.quiet import quiet
from edgewise.runtime.tensors import TensorSpec


@dataclass(frozen=True)
class Architecture:
    """A built network, and the inputs that it states by itself (none for a plain callable)."""

    module: torch.nn.Module
    inputs: tuple[TensorSpec, ...] = ()


def build(maker: Callable[..., Any], arch: str, arguments: Mapping[str, Any]) -> Any:
    """Call ``maker`` with keyword arguments.

    Raises:
        ExportError: it raises; the error is quoted.
    """
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
