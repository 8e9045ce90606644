"""The exporter's error."""

from __future__ import annotations

from edgewise.runtime.errors import EdgewiseError


class ExportError(EdgewiseError):
    """Raised by ``edgewise.exporter``: a source that cannot be read, an architecture that does not fit, a graph that cannot be traced."""
