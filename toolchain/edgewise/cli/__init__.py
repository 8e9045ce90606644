"""The command line. ``main`` is the entry point; what it needs is imported when it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code: 0 done, 1 a gate failed, 2 bad input or usage."""
    from edgewise.cli.outcome import run

    sys.exit(run(sys.argv[1:] if argv is None else list(argv)))
