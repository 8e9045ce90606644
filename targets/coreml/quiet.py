"""coremltools without its warnings about other frameworks and its progress bars; the graph passes without theirs."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock


@contextmanager
def without_warnings(*names: str) -> Iterator[None]:
    """Let these loggers speak of errors only inside the block."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


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
