"""From a YAML table to a dataclass and back: unknown keys and wrong types are refused, with the nearest name."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from edgewise.errors import ToolchainError

T = TypeVar("T")
_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    tuple: "a list of texts",
    dict: "a table",
}


def refuse_unknown(table: Mapping[str, Any], known: typing.Iterable[str], where: str) -> None:
    """Raise ToolchainError for the first key that is not known, naming the nearest one that is."""
    known = list(known)
    for key in table:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            raise ToolchainError(
                "unknown key in the recipe",
                where=where,
                found=repr(key),
                expected=f"one of {', '.join(known)}",
                fix=f"Did you mean {near[0]!r}?" if near else "Remove it (docs/recipe.md lists every key)",
            )


def read_table(kind: type[T], table: Any, where: str) -> T:
    """Make a settings dataclass of a table.

    Raises:
        ToolchainError: no table, an unknown or missing key, a value of another type; says where.
    """
    if not isinstance(table, dict):
        raise _wrong(where, table, "a table of keys, or null to skip the stage")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    refuse_unknown(table, fields, where)
    for name, field in fields.items():
        if name not in table and field.default is field.default_factory is dataclasses.MISSING:
            raise ToolchainError(
                "a key is missing in the recipe",
                where=where,
                found=f"no {name!r}",
                expected=f"{name}: {_expected(typing.get_type_hints(kind)[name])}",
                fix="Add it (docs/recipe.md describes it)",
            )
    hints = typing.get_type_hints(kind)
    return kind(**{key: read_value(hints[key], value, f"{where}.{key}") for key, value in table.items()})


def read_value(hint: Any, value: Any, where: str) -> Any:
    """Check a value against a type hint; whole numbers serve as floats, lists become tuples."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    plain = next(option for option in options if option is not type(None))
    base = typing.get_origin(plain) or plain
    if base is tuple:
        kind = typing.get_args(plain)[0]
        if isinstance(value, (list, tuple)) and all(type(item) is kind for item in value):
            return tuple(value)
    elif base is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif isinstance(value, base) and not (base is int and isinstance(value, bool)):
        return value
    raise _wrong(where, value, _expected(hint))


def write_table(settings: Any) -> dict[str, Any]:
    """The inverse of :func:`read_table`, every key written out."""
    return {
        field.name: list(value) if isinstance(value := getattr(settings, field.name), tuple) else value
        for field in dataclasses.fields(settings)
    }


def _expected(hint: Any) -> str:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return " or ".join(
        "a list of whole numbers"
        if option == tuple[int, ...]
        else _NAMES.get(typing.get_origin(option) or option, "null")
        for option in options
    )


def _wrong(where: str, value: Any, expected: str) -> ToolchainError:
    return ToolchainError(
        "wrong value in the recipe", where=where, found=repr(value), expected=expected, fix="See docs/recipe.md"
    )
