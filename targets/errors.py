"""The error of ``edgewise.targets``."""

from __future__ import annotations

from edgewise.runtime.errors import EdgewiseError


class TargetError(EdgewiseError):
    """A graph that a target cannot take, an unknown target, device or option, a vendor's refusal."""
