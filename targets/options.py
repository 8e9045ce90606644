"""A target's build options: declared as data, read with every mistake refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgewise.targets.errors import TargetError


@dataclass(frozen=True)
class Option:
    """One key of a recipe's ``build.options``.

    Attributes:
        default: its value when the recipe does not name it; None means "decided by the target".
        kind: the type it must have.
        choices: the values it may have; empty when any of that type will do.
    """

    default: Any
    kind: type
    choices: tuple[Any, ...] = ()


def read_options(given: Mapping[str, Any], known: Mapping[str, Option], target: str) -> dict[str, Any]:
    """Every known option with its value.

    Raises:
        TargetError: an unknown option, a value of another type or outside the choices.
    """
    where = f"target {target}, build.options"
    for key, value in given.items():
        if key not in known:
            raise TargetError(
                "unknown build option",
                where=where,
                found=repr(key),
                expected=f"one of {', '.join(known)}" if known else "no options",
                fix="Check its name in the recipe",
            )
        option = known[key]
        if value is not None:
            _check(f"{key} = {value!r}", value, option, where)
    return {key: option.default if given.get(key) is None else given[key] for key, option in known.items()}


def _check(found: str, value: Any, option: Option, where: str) -> None:
    fits = isinstance(value, option.kind) and (option.kind is bool or not isinstance(value, bool))
    if not fits or (option.choices and value not in option.choices):
        raise TargetError(
            "a build option has a wrong value",
            where=where,
            found=found,
            expected=" or ".join(map(str, option.choices)) or f"a value of type {option.kind.__name__}",
            fix="Correct it in the recipe",
        )
