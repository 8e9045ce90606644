"""The table of operators: every file in ``ops/`` gives its rows."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from edgewise.targets.coreml import ops
from edgewise.targets.coreml.row import Row


@cache
def families() -> dict[str, tuple[Row, ...]]:
    """Rows by the name of their file."""
    names = sorted(module.name for module in pkgutil.iter_modules(ops.__path__))
    modules = {name: importlib.import_module(f"{ops.__name__}.{name}") for name in names}
    return {name: module.ROWS for name, module in modules.items() if hasattr(module, "ROWS")}


@cache
def table() -> dict[tuple[str, str], Row]:
    """Rows by domain and operator."""
    return {(row.domain, row.op): row for rows in families().values() for row in rows}
