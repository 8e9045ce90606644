"""Progress on stderr: a live line on a terminal, one line per task anywhere else."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


class Meter:
    """A :class:`~edgewise.runtime.progress.Progress` for people. A context: the live line is gone when it ends."""

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._current: TaskID | None = None
        self._task = ""
        self._nothing_done = False

    def __enter__(self) -> Meter:
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._bars = _make_bars()
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._finish("✗" if error is not None or self._nothing_done else "✓")
            self._bars.stop()

    def __call__(self, task: str, done: int, total: int | None) -> None:
        """A new task is a new line; the one before it stays as text: ticked, or crossed where none of its steps was done."""
        fresh, self._task = task != self._task, task
        if self._bars is None:
            if fresh:
                sys.stderr.write(f"{task}\n")
                sys.stderr.flush()
            return
        if fresh or self._current is None:
            self._finish("✗" if self._nothing_done else "✓")
            self._current = self._bars.add_task(task, total=total)
        self._nothing_done = done == 0 and total is not None
        self._bars.update(self._current, completed=done, total=total)

    def _finish(self, mark: str) -> None:
        """Turn the task at hand into a line of text above the live one."""
        if self._bars is None or self._current is None:
            return
        description = self._bars.tasks[self._bars.task_ids.index(self._current)].description
        self._bars.remove_task(self._current)
        self._bars.console.print(f"{mark} {description}", highlight=False, markup=False)
        self._current = None


def _make_bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)
