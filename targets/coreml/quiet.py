"""coremltools without its warnings about other frameworks and its progress bars."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from edgewise.targets.loggers import without_warnings


@contextmanager
def quietly() -> Iterator[None]:
    """Silence coremltools (its logger, its warnings, its tqdm bars) inside the block; errors are raised as ever."""
    with without_warnings("coremltools"), warnings.catch_warnings(), _without_bars():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _without_bars() -> Iterator[None]:
    from tqdm import std  # type: ignore[import-untyped]

    silent = functools.partialmethod(std.tqdm.__init__, disable=True)
    with mock.patch.object(std.tqdm, "__init__", silent):
        yield


def load_coremltools() -> Any:
    """Import coremltools, which takes seconds and talks.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    with quietly():
        import coremltools
    return coremltools
