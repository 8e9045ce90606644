"""The front door's own error."""

from __future__ import annotations

from typing import Any

from edgewise.runtime.errors import EdgewiseError, GateError


class ToolchainError(EdgewiseError):
    """Raised by the front door: a recipe, an option or a combination of them that cannot be carried out."""


class GateFailedError(GateError):
    """A gate did not hold; ``result`` is what the verb found out nevertheless (the object that ``--json`` prints)."""

    def __init__(self, error: GateError, result: dict[str, Any]) -> None:
        super().__init__(error.what, where=error.where, found=error.found, expected=error.expected, fix=error.fix)
        self.result = result
