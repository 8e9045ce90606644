"""What every test may use, and the guard against a double import."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

_BARE = ("exporter", "quantize", "targets", "runtime", "toolchain")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Real images and trained weights beside the checkout; the test skips without them."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "models").is_dir():
        pytest.skip("needs ../shared with its real weights and images")
    return folder


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when a part was imported by its bare name: it would exist twice, with two of every class."""
    doubled = [name for name in _BARE if name in sys.modules]
    if doubled:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        sys.stderr.write(f"\nimported by bare name: {', '.join(doubled)}; import edgewise.NAME instead\n")
