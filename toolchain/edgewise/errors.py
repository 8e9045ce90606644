"""The front door's own error, and errors as JSON."""

from __future__ import annotations

from typing import Any

from edgewise.runtime.errors import EdgewiseError, GateError

_PARTS = ("what", "where", "found", "expected", "fix")


class ToolchainError(EdgewiseError):
    """Raised by the front door: a recipe, an option or a combination of them that cannot be carried out."""


class GateFailedError(GateError):
    """A gate did not hold; ``result`` is what the verb found out nevertheless (the object that ``--json`` prints)."""

    def __init__(self, error: EdgewiseError, result: dict[str, Any]) -> None:
        super().__init__(**parts_of(error))
        self.result = result
        self.exit_code = error.exit_code


def parts_of(error: EdgewiseError) -> dict[str, str]:
    """The five parts by name: the arguments that make the same error again."""
    return {part: getattr(error, part) for part in _PARTS}


def error_entry(error: EdgewiseError) -> dict[str, Any]:
    """An error as ``--json`` prints it: the five parts, the sentence, and the exit code."""
    return {
        **parts_of(error),
        "message": str(error),
        "gate": isinstance(error, GateError),
        "exit_code": error.exit_code,
    }
