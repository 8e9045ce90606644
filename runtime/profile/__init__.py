"""Measure a bundle on this machine: load, first run, warm runs, memory, layers, and whether to trust the numbers."""

from __future__ import annotations

from edgewise.runtime.profile.local import profile

__all__ = ["profile"]
