"""README.md is true: its commands run, and print what it says that they print.

In a ``console`` block a line that starts with ``$`` is a command, the others are its output. ``…`` stands for anything. Numbers may differ by
a tenth, percentages by one point, times by any amount, and the cpu target builds for the machine it runs on; the rest must be equal, but for the amount of space.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewise.targets.cpu.host import host_device

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

_ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_NUMBER = re.compile(r"(?<![\w.-])(\d+(?:\.\d+)?)(?![\w.-])( ms| s| %)?")


def _blocks(language: str) -> list[str]:
    return [
        body for name, body in _FENCE.findall((_ROOT / "README.md").read_text(encoding="utf-8")) if name == language
    ]


def _commands(block: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block with the output that it should have."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        match = re.match(r"((?:[^\n]*\\\n)*[^\n]*)\n(.*)", part, re.DOTALL)
        assert match
        yield match[1], match[2]


def _squeezed(text: str) -> str:
    return re.sub(r"─+", "─", " ".join(text.split()))


def _differences(expected: str, found: str) -> list[str]:
    """What is not as it should be: one line for all text, or one for each number that is too far off."""
    expected, found = _squeezed(expected), _squeezed(found)
    pattern, wanted, end = "", [], 0
    for match in _NUMBER.finditer(expected):
        pattern += re.escape(expected[end : match.start()]) + r"(\d+(?:\.\d+)?)" + re.escape(match[2] or "")
        wanted.append((float(match[1]), match[2]))
        end = match.end()
    pattern += re.escape(expected[end:])
    matched = re.fullmatch(pattern.replace("…", ".*?"), found)
    if matched is None:
        return [f"expected:\n{expected}\nfound:\n{found}"]
    return [
        f"expected {want}{unit or ''}, found {have}"
        for (want, unit), have in zip(wanted, map(float, matched.groups()), strict=True)
        if abs(want - have) > _tolerance(want, unit)
    ]


def _tolerance(value: float, unit: str | None) -> float:
    return {" ms": float("inf"), " s": float("inf"), " %": 1.0}.get(unit or "", 0.1 * value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder with the examples in it, where the README's commands have run; later blocks use what earlier ones made."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "examples").symlink_to(_ROOT / "examples")
    return folder


def test_the_commands_print_what_the_readme_says(folder: Path) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "NO_COLOR": "1"}
    commands = [pair for block in _blocks("console") for pair in _commands(block)]
    assert commands
    for command, expected in commands:
        done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert _differences(expected.replace("x86-64-v4-vnni", host_device()), done.stdout) == [], command
    _check_python(folder)


def _check_python(folder: Path) -> None:
    source = "\n".join(_blocks("python"))
    test = doctest.DocTestParser().get_doctest(source, {}, "README", "README.md", 0)
    assert test.examples
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert doctest.DocTestRunner().run(test).failed == 0
    finally:
        os.chdir(before)


def test_every_page_that_a_page_links_to_is_there() -> None:
    pages = [_ROOT / "README.md", _ROOT / "CONTRIBUTING.md", *sorted((_ROOT / "docs").glob("*.md"))]
    missing = [
        f"{page.name}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
        if not (page.parent / link).exists()
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("expected", "found", "same"),
    [
        ("top1  97.56 %", "top1 97.78 %", True),
        ("top1  97.56 %", "top1 95.00 %", False),
        ("load 3.1 ms", "load 900 ms", True),
        ("size 100 KiB", "size 120 KiB", False),
        ("a\n…\nb", "a\nx\ny\nb", True),
        ("run by PyTorch", "run by ONNX Runtime", False),
        ("x86-64-v3 ── ok", "x86-64-v4 ──── ok", False),
    ],
)
def test_outputs_are_compared_as_said(expected: str, found: str, same: bool) -> None:
    assert (_differences(expected, found) == []) is same
