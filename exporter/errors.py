"""The exporter's error, and what others' errors say in it."""

from __future__ import annotations

from edgewise.runtime.errors import EdgewiseError


class ExportError(EdgewiseError):
    """Raised by ``edgewise.exporter``: a source that cannot be read, an architecture that does not fit, a graph that cannot be traced."""


def first_line(error: BaseException) -> str:
    """An exception's first non-empty line, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
