"""Late import of packages that belong to an extra."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from edgewise.runtime.errors import MissingExtraError


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Wrap late imports: a package that is not installed becomes an error that names the extra.

    Raises:
        MissingExtraError: a package imported inside the block is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if not package or importlib.util.find_spec(package) is not None:
            raise  # it is installed but broken, or our own mistake
        raise MissingExtraError(package, extra) from error


def lazy_exports(names: Mapping[str, str], extra: str) -> Callable[[str], Any]:
    """A module-level ``__getattr__`` (PEP 562): ``names`` maps each public name to the module that defines it."""

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(name)
        with needs(extra):
            return getattr(importlib.import_module(names[name]), name)

    return find
