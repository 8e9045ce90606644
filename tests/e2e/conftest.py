"""The command line as a user has it: the installed program, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
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
def cli() -> Cli:
    """Run a verb with ``--json`` that must succeed; gives its result."""

    def run(*arguments: str | Path) -> dict[str, Any]:
        done = edgewise(*arguments, "--json")
        assert done.returncode == 0, f"{' '.join(map(str, arguments))}\n{done.stderr[-4000:]}\n{done.stdout[-4000:]}"
        result: dict[str, Any] = json.loads(done.stdout)
        assert "schema_version" in result
        return result

    return run


@pytest.fixture
def cli_here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """As ``cli``, in this process, which need not import everything again: where the README's test starts the program with the same verb."""
    from edgewise.cli.outcome import run

    monkeypatch.chdir(_ROOT)

    def call(*arguments: str | Path) -> dict[str, Any]:
        capfd.readouterr()
        code = run([*map(str, arguments), "--json"])
        captured = capfd.readouterr()
        assert code == 0, captured.err[-4000:]
        result: dict[str, Any] = json.loads(captured.out)
        return result

    return call


@pytest.fixture(scope="session")
def refused() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a verb as it is; gives status, stdout and stderr."""
    return edgewise
