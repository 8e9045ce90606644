"""The command line as a user has it: the installed program, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).resolve().parents[2]
Cli = Callable[..., dict[str, Any]]


def edgewise(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the installed program in the checkout's root."""
    program = Path(sys.executable).parent / "edgewise"
    return subprocess.run(
        [program, *map(str, arguments)],
        cwd=_ROOT,
        env=os.environ | {"NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="session")
def cli_here() -> Cli:
    """Run a verb with ``--json`` that must succeed; gives its result.

    In this process, which need not import everything again: the README's test starts the program with the same verbs.
    """
    from edgewise.cli.outcome import run

    def call(*arguments: str | Path) -> dict[str, Any]:
        with (
            pytest.MonkeyPatch.context() as patch,
            redirect_stdout(StringIO()) as out,
            redirect_stderr(StringIO()) as err,
        ):
            patch.chdir(_ROOT)
            code = run([*map(str, arguments), "--json"])
        assert code == 0, err.getvalue()[-4000:]
        result: dict[str, Any] = json.loads(out.getvalue())
        return result

    return call


@pytest.fixture(scope="session")
def refused() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a verb as it is; gives status, stdout and stderr."""
    return edgewise
