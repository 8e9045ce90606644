"""Which targets there are: the modules of this folder with a ``TARGET``, and other people's by entry point."""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points

import edgewise.targets as package
from edgewise.targets.base import Target
from edgewise.targets.errors import TargetError

GROUP = "edgewise.targets"
_REQUIRED = (
    "name", "summary", "default_device", "min_opset", "schemes", "support", "quantization", "build", "executor",
)  # fmt: skip


@dataclass(frozen=True)
class _Found:
    """Targets that work, and by entry point name what is wrong with those that do not."""

    targets: dict[str, Target]
    broken: dict[str, TargetError]


def targets() -> dict[str, Target]:
    """Every target found, by name. Importing a target does not import its vendor's package.

    Somebody's plugin that cannot be loaded is left out, with a warning that names it.
    """
    return dict(_discover().targets)


def find_target(name: str) -> Target:
    """A target by name.

    Raises:
        TargetError: there is none of that name, or it is a plugin that cannot be loaded.
    """
    found = _discover()
    if name in found.targets:
        return found.targets[name]
    if name in found.broken:
        raise found.broken[name]
    raise TargetError(
        "unknown target",
        where=f"--target {name}",
        found=repr(name),
        expected=f"one of {', '.join(sorted(found.targets))}",
        fix="Check the name",
    )


@cache
def _discover() -> _Found:
    found = _Found(_own_targets(), {})
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            target = _load(entry, found.targets)
        except TargetError as error:
            found.broken[entry.name] = error
            warnings.warn(str(error), RuntimeWarning, stacklevel=3)
        else:
            found.targets[target.name] = target
    return found


def _own_targets() -> dict[str, Target]:
    modules = (
        importlib.import_module(f"{package.__name__}.{info.name}") for info in pkgutil.iter_modules(package.__path__)
    )
    return {module.TARGET.name: module.TARGET for module in modules if hasattr(module, "TARGET")}


def _load(entry: EntryPoint, taken: dict[str, Target]) -> Target:
    """Load a plugin.

    Raises:
        TargetError: its import fails in any way, it lacks part of the protocol, or its name is taken.
    """
    where = f"entry point {entry.name} = {entry.value}" + (
        f" of {entry.dist.name} {entry.dist.version}" if entry.dist else ""
    )
    try:
        target: Target = entry.load()
    except Exception as error:  # whatever somebody's module does when it is imported
        raise _broken(where, f"{type(error).__name__}: {error}", "a module that imports") from error
    if missing := [attribute for attribute in _REQUIRED if not hasattr(target, attribute)]:
        raise _broken(where, f"{target!r} without {', '.join(missing)}", "an object like edgewise.targets.Target")
    if target.name in taken:
        raise _broken(where, f"the name {target.name!r}, which another target has", "a name of its own")
    return target


def _broken(where: str, found: str, expected: str) -> TargetError:
    return TargetError(
        "cannot load a target plugin",
        where=where,
        found=found,
        expected=expected,
        fix="Update or uninstall that package; the other targets work without it",
    )
