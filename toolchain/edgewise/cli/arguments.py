"""Texts of the command line that mean more than themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgewise.errors import ToolchainError
from edgewise.runtime.storage import whole_file


def pairs(texts: Sequence[str] | None, option: str) -> dict[str, Any]:
    """``KEY=VALUE`` texts as a table; values are read as JSON where they are JSON, lists and tables as a recipe has them, and are texts otherwise.

    Raises:
        ToolchainError: a text without ``=``, or a list or table that does not end.
    """
    made: dict[str, Any] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ToolchainError(
                "cannot read an option",
                where=f"{option} {text}",
                expected="KEY=VALUE",
                fix=f"Write it as {option} num_classes=10",
            )
        try:
            made[key] = json.loads(value)
        except ValueError:
            made[key] = _flow(value, f"{option} {key}") if value.startswith(("{", "[")) else value
    return made


def _flow(text: str, where: str) -> Any:
    """A list or a table as YAML writes it on one line."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ToolchainError(
            "cannot read an option",
            where=where,
            found=" ".join(str(error).split()),
            expected="JSON, or YAML on one line",
            fix="Write it as {width: 224} or [a, b], in quotes for the shell",
        ) from error


def whole_numbers(text: str | None, option: str) -> list[int]:
    """Numbers from 1 up, with commas between.

    Raises:
        ToolchainError: something else.
    """
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ToolchainError(
            "cannot read an option", where=f"{option} {text}", expected="numbers from 1 up, with commas between", fix=f"Write it as {option} 1,2,4"
        )  # fmt: skip
    return [int(part) for part in parts]


def keep(result: dict[str, Any], path: str | None) -> dict[str, Any]:
    """The result, written to a file as well if one is named."""
    if path is not None:
        with whole_file(Path(path)) as draft:
            draft.write_text(json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return result
