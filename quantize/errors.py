"""What this part raises."""

from __future__ import annotations

from edgewise.runtime.errors import EdgewiseError


class QuantizeError(EdgewiseError):
    """Raised by ``edgewise.quantize``: a graph, calibration data or a request that cannot be carried out."""
