"""The rules of the house that a linter does not hold: sizes, names, what may be in the repository."""

from __future__ import annotations

import ast
import importlib
import os
import re
import statistics
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]
_PARTS = {
    "edgewise": "toolchain/edgewise",
    "edgewise.exporter": "exporter",
    "edgewise.quantize": "quantize",
    "edgewise.targets": "targets",
    "edgewise.runtime": "runtime",
}
_MAX_FILE_LINES, _MAX_PUBLIC_NAMES, _MAX_BYTES = 800, 15, 1 << 20
# In two halves each, so that this file does not hold what it looks for.
_FORBIDDEN_TEXT = [
    re.compile(first + second)
    for first, second in [
        (r"(?<![\w.])/wo", r"rk/"),
        (r"(?<![\w.])/ro", r"ot/"),
        (r"(?<![\w.])/opt/", r"wheels"),
        (r"py", r"pi\.org"),
        (r"python", r"hosted\.org"),
        (r"deb\.deb", r"ian\.org"),
        (r"registry\.np", r"mjs"),
        (r"download\.py", r"torch\.org"),
        (r"\.pyenv/ver", r"sions"),
    ]
]
_TARGET_WORDS = {"target", "target_name", "backend", "engine_kind"}


@cache
def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=_ROOT, capture_output=True, check=True).stdout.decode()
    return [_ROOT / name for name in listed.split("\0") if name and (_ROOT / name).is_file()]


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def _python(folder: str) -> list[Path]:
    return [file for file in _tracked() if file.suffix == ".py" and file.is_relative_to(_ROOT / folder)]


def _lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def _function_lengths(source: str) -> list[int]:
    """Lines of each function, from ``def`` to its end, without the docstring."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            first = node.body[0]
            documented = ast.get_docstring(node, clean=False) is not None
            docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
            found.append(node.end_lineno - node.lineno + 1 - docstring)
    return found


def _named_comparisons(source: str) -> list[int]:
    """Lines that compare a target's name with a string: ``target == "cpu"``, ``target.name in ("cpu", …)``, ``match target``."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(map(_is_target, sides)) and any(map(_is_text, sides)):
                found.append(node.lineno)
        elif isinstance(node, ast.Match) and _is_target(node.subject):
            found.append(node.lineno)
    return found


def _is_target(node: ast.expr) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr in _TARGET_WORDS or (node.attr == "name" and _is_target(node.value))
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and node.slice.value in _TARGET_WORDS
    return isinstance(node, ast.Name) and node.id in _TARGET_WORDS


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return bool(node.elts) and all(map(_is_text, node.elts))
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_no_file_is_too_long() -> None:
    long = {
        file.name: _lines(file) for file in _tracked() if _text(file) is not None and _lines(file) > _MAX_FILE_LINES
    }
    assert long == {}


@pytest.mark.parametrize("folder", _PARTS.values())
def test_files_are_short_in_the_median(folder: str) -> None:
    assert statistics.median(_lines(file) for file in _python(folder)) <= 200


@pytest.mark.parametrize("folder", _PARTS.values())
def test_functions_are_short(folder: str) -> None:
    lengths = sorted(length for file in _python(folder) for length in _function_lengths(file.read_text("utf-8")))
    assert statistics.median(lengths) <= 10
    assert lengths[int(0.9 * len(lengths))] <= 40


def test_function_lengths_are_counted_without_the_docstring() -> None:
    assert _function_lengths('def f():\n    """One.\n\n    Two.\n    """\n    return 1\n') == [2]


@pytest.mark.parametrize("part", _PARTS)
def test_a_part_has_few_public_names_and_they_are_there(part: str) -> None:
    module = importlib.import_module(part)
    assert len(module.__all__) <= _MAX_PUBLIC_NAMES
    assert sorted(set(module.__all__)) == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None


def test_no_module_is_a_drawer_of_everything() -> None:
    drawers = {"utils.py", "util.py", "helpers.py", "helper.py", "common.py", "misc.py"}
    assert [file for file in _tracked() if file.name in drawers] == []


@pytest.mark.parametrize("pattern", _FORBIDDEN_TEXT, ids=lambda pattern: pattern.pattern)
def test_no_file_names_a_machines_paths_or_a_registrys_host(pattern: re.Pattern[str]) -> None:
    assert [file.relative_to(_ROOT) for file in _tracked() if pattern.search(_text(file) or "")] == []


def test_nothing_large_is_tracked() -> None:
    assert {file.name: file.stat().st_size for file in _tracked() if file.stat().st_size > _MAX_BYTES} == {}


@pytest.mark.parametrize(
    "name", [".ci/run", "scripts/bench", "scripts/check", "scripts/demo", "scripts/setup", "scripts/test"]
)
def test_a_script_is_short_and_stops_at_the_first_error(name: str) -> None:
    script = _ROOT / name
    text = script.read_text(encoding="utf-8")
    assert os.access(script, os.X_OK)
    assert text.startswith("#!/usr/bin/env bash\n#")
    assert '\nset -euo pipefail\ncd "$(dirname "$0")/.."\n' in text
    assert len(text.splitlines()) <= 40
    assert subprocess.run(["bash", "-n", script]).returncode == 0


@pytest.mark.parametrize("folder", _PARTS.values())
def test_nothing_asks_which_target_it_is(folder: str) -> None:
    found = [
        f"{file.relative_to(_ROOT)}:{line}"
        for file in _python(folder)
        for line in _named_comparisons(file.read_text("utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "target == 'cpu'",
        "'cpu' != target.name",
        "request.target in ('cpu', 'null')",
        "manifest['target'] == 'cpu'",
        "match target.name:\n    case 'cpu': pass",
    ],
)
def test_a_comparison_with_a_targets_name_is_seen(source: str) -> None:
    assert _named_comparisons(source) == [1]


def test_other_comparisons_are_let_through() -> None:
    assert _named_comparisons("target in found\nname == 'cpu'\ntarget is None\n") == []


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize(("line", "status"), [("import quantize", 1), ("import edgewise", 0)])
def test_the_run_fails_after_an_import_by_a_bare_name(tmp_path: Path, workers: str, line: str, status: int) -> None:
    (tmp_path / "conftest.py").write_bytes((_ROOT / "tests" / "conftest.py").read_bytes())
    (tmp_path / "quantize.py").touch()
    (tmp_path / "test_it.py").write_text(f"def test_it():\n    {line}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-n", workers, "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True)
    assert done.returncode == status, done.stdout.decode()
