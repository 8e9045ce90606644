"""Running a verb: its progress on stderr, whatever libraries print kept off stdout, its result on stdout."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import typer

from edgewise.cli.meter import Meter
from edgewise.cli.outcome import debugging, print_json
from edgewise.errors import GateFailedError
from edgewise.runtime.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console


class Verb(Protocol):
    """A verb with its arguments already given."""

    def __call__(self, *, progress: Progress) -> dict[str, Any]:
        """Do it."""


Show = Callable[[dict[str, Any], "Console"], None]
_PIPE_CLOSED = 141  # as for a program that SIGPIPE ended
_WIDE = 200  # what a pipe or file gets: nothing is cut


def perform(verb: Verb, show: Show, *, as_json: bool) -> None:
    """Run a verb and print its result: by ``show`` for people, as one JSON object otherwise.

    A gate that failed still has a result, which is shown before the error goes on its way.
    """
    with stdout_kept_clean(), Meter() as meter:
        try:
            result = verb(progress=meter)
        except GateFailedError as error:
            failure: GateFailedError | None = error
            result = error.result
        else:
            failure = None
    with reader_may_leave():
        if as_json and failure is None:
            print_json(result)
        elif not as_json:
            show(result, _console())
            sys.stdout.flush()
    if failure is not None:
        raise failure
    if result.get("exit_code"):
        raise typer.Exit(result["exit_code"])


@contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """Send file descriptor 1 to stderr meanwhile: builders of vendors print on it, from C++ as well.

    Warnings and log lines that are not errors are not for the user either, unless debugging.
    """
    level = logging.root.manager.disable
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with warnings.catch_warnings():
            if not debugging(sys.argv):
                warnings.simplefilter("ignore")
                logging.disable(logging.WARNING)
            yield
    finally:
        logging.disable(level)
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """When the reader of our output has gone, as in ``edgewise inspect … | head``, leave without a word."""
    try:
        yield
    except BrokenPipeError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered goes nowhere
        raise typer.Exit(_PIPE_CLOSED) from error


def _console() -> Console:
    from rich.console import Console

    class Piped(Console):
        """Rich would leave with 1 when the reader has gone, which is a gate's exit code here."""

        def on_broken_pipe(self) -> None:
            raise

    return Piped(width=None if sys.stdout.isatty() else _WIDE, highlight=False, markup=False, emoji=False)
