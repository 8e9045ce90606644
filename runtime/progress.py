"""How long work tells its caller how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with what is being done, how many steps are done, and how many there are (None: unknown)."""

    def __call__(self, task: str, done: int, total: int | None) -> None:
        """Report one step."""


def silent(task: str, done: int, total: int | None) -> None:
    """The progress of a caller who does not want to know."""
