"""The table: MIL operation → numpy function. Every file in ``mil/`` gives its part."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import Any

from edgewise.targets.coreml.evaluator import mil


@cache
def operations() -> dict[str, Callable[..., Any]]:
    """Functions by MIL operation; arguments by MIL's parameter names."""
    found: dict[str, Callable[..., Any]] = {}
    for module in pkgutil.iter_modules(mil.__path__):
        found |= importlib.import_module(f"{mil.__name__}.{module.name}").OPERATIONS
    return found
