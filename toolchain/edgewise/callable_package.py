"""A package that can be called: where a verb and a package have the same name."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


def make_callable(package: str, module: str, function: str) -> None:
    """Import ``package`` and let a call of it be a call of ``module.function``, which is imported then and not before.

    The class of a module may be replaced (docs.python.org, data model, "customizing module attribute access"), and everything
    else about the package stays as it is.
    """

    class CallablePackage(ModuleType):
        """A package whose call is a verb."""

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return getattr(importlib.import_module(module), function)(*args, **kwargs)

    importlib.import_module(package)
    sys.modules[package].__class__ = CallablePackage
