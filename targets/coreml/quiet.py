"""coremltools without its warnings about other frameworks and its progress bars."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock


@contextmanager
def quietly() -> Iterator[None]:
    """Silence coremltools (its logger, its warnings, its tqdm bars) inside the block; errors are raised as ever."""
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), _without_bars():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


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
