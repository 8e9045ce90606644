"""The command line. ``main`` is the entry point; what it needs is imported when it runs."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType

_TERMINATED = 143


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code: 0 done, 1 a gate failed, 2 bad input or usage."""
    from edgewise.cli.outcome import run

    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run(sys.argv[1:] if argv is None else list(argv)))


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(_TERMINATED)  # unwinds, so that drafts are removed
