"""Functions that a user names on the command line: ``module:function`` or ``path.py:function``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from edgewise.runtime.errors import RunError


def find_callable(text: str, *, option: str) -> Callable[..., Any]:
    """Import what ``module:function`` or ``path.py:function`` names; modules are found in the current folder too.

    Args:
        text: the name. Dots after the colon reach into classes.
        option: the command line's option that carries it, to name in an error.

    Raises:
        RunError: another form, no such module or function, it is not callable, or its module fails while it is imported.
    """
    place, _, name = text.rpartition(":")
    if not place or not all(part.isidentifier() for part in name.split(".")):
        raise _unusable(f"{option} {text}", repr(text), "module:function or path.py:function")
    where = f"{option} {text}"
    module = _import_file(Path(place), where) if place.endswith(".py") else _import_module(place, where)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise _unusable(
                where, f"no {part!r} in {getattr(module, '__file__', None) or place}", "a function of that name"
            )
        found = getattr(found, part)
    if not callable(found):
        raise _unusable(where, f"{type(found).__name__} {name!r}", "something that can be called")
    function: Callable[..., Any] = found
    return function


def _import_module(name: str, where: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        # At the end, and for good: it hides nothing that is installed, and the module may import its neighbours late.
        sys.path.append(here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise _failed(where, error) from error
        raise _unusable(where, f"no module {name!r}", f"one that is installed or lies in {here}") from error
    except Exception as error:  # whatever the user's module does
        raise _failed(where, error) from error


def _import_file(path: Path, where: str) -> ModuleType:
    if not path.is_file():
        raise _unusable(where, f"no file {path}", "a Python file")
    path = path.resolve()
    name = f"edgewise_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise _unusable(where, str(path), "a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's module does
        del sys.modules[name]
        raise _failed(where, error) from error
    return module


def _failed(where: str, error: Exception) -> RunError:
    return RunError(
        "the module failed while it was imported",
        where=where,
        found=f"{type(error).__name__}: {error}",
        expected="a module that imports without an error",
        fix="Import it in Python to see the whole traceback",
    )


def _unusable(where: str, found: str, expected: str) -> RunError:
    return RunError(
        "cannot find the function", where=where, found=found, expected=expected, fix="Check the name and the current folder"
    )  # fmt: skip
