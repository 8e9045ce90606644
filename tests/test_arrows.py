"""The arrows of docs/design.md, read from the imports: late ones and those by name (``lazy_exports``) count too."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]
_FOLDERS = {
    "runtime": "runtime",
    "exporter": "exporter",
    "quantize": "quantize",
    "targets": "targets",
    "toolchain": "toolchain/edgewise",
}
_ARROWS = {
    "runtime": set(),
    "exporter": {"runtime"},
    "quantize": {"runtime"},
    "targets": {"quantize", "runtime"},
    "toolchain": {"exporter", "quantize", "targets", "runtime"},
}
_MODULE_NAME = re.compile(r"^edgewise(\.\w+)*\.?$")


def _files(part: str) -> list[Path]:
    return sorted((_ROOT / _FOLDERS[part]).rglob("*.py"))


def _imported(node: ast.AST) -> Iterator[str]:
    """Modules that one node imports, or names in a string as a module of ours."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _MODULE_NAME.match(node.value):
        yield from [node.value] if _exists(node.value) else []


def _exists(name: str) -> bool:
    """Whether a dotted name is a module of ours: strings also name domains and keys of metadata."""
    inner = name.rstrip(".").split(".")[1:]
    if inner and inner[0] in _ARROWS:
        return True
    place = (_ROOT / _FOLDERS["toolchain"]).joinpath(*inner)
    return place.with_suffix(".py").is_file() or place.is_dir()


def _part_of(module: str) -> str | None:
    """The part that a module belongs to; None for other people's (and for the package's bare name)."""
    names = module.rstrip(".").split(".")
    if names[0] != "edgewise" or len(names) == 1:
        return None
    return names[1] if names[1] in _ARROWS else "toolchain"


def _arrows_of(part: str, tree: ast.AST) -> list[tuple[int, str]]:
    """Line and module of every import that the part may not make."""
    allowed = _ARROWS[part] | {part, None}
    found = [(getattr(node, "lineno", 0), name) for node in ast.walk(tree) for name in _imported(node)]
    return [(line, name) for line, name in found if _part_of(name) not in allowed]


def _at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The import statements that run when the module is imported: not those in functions or under TYPE_CHECKING."""
    for statement in body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            yield statement
        elif isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            yield from _at_import(statement.orelse)
        elif not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            for field in ("body", "orelse", "finalbody"):
                yield from _at_import(getattr(statement, field, []))
            for handler in getattr(statement, "handlers", []):
                yield from _at_import(handler.body)


@pytest.mark.parametrize("part", _ARROWS)
def test_a_part_imports_only_what_its_arrows_allow(part: str) -> None:
    wrong = [
        f"{file.relative_to(_ROOT)}:{line} imports {name}"
        for file in _files(part)
        for line, name in _arrows_of(part, ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert _files(part)
    assert wrong == []


@pytest.mark.parametrize(
    "source",
    [
        "import edgewise.targets",
        "from edgewise import targets",
        "from edgewise.targets.base import Target",
        "def late():\n    from edgewise.targets import find_target",
        "names = {'find_target': 'edgewise.targets'}",
        "import_module(f'edgewise.targets.{name}')",
        "names = {'read': 'edgewise.recipe'}",
        "from edgewise.recipe import Recipe",
    ],
)
def test_a_forbidden_import_is_seen_in_every_form(source: str) -> None:
    assert _arrows_of("quantize", ast.parse(source))


def test_an_allowed_import_is_let_through() -> None:
    source = "import numpy\nfrom edgewise.runtime.errors import EdgewiseError\nfrom edgewise.quantize import quantize\nkey = 'edgewise.coreml'\n"
    assert _arrows_of("quantize", ast.parse(source)) == []


@pytest.mark.parametrize("file", _files("runtime"), ids=lambda file: file.relative_to(_ROOT).as_posix())
def test_runtime_imports_with_numpy_alone(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = {name.split(".")[0] for statement in _at_import(tree.body) for name in _imported(statement)}
    assert names - set(sys.stdlib_module_names) <= {"numpy", "edgewise"}


def test_module_level_imports_are_told_from_late_ones() -> None:
    tree = ast.parse(
        "import a\nif TYPE_CHECKING:\n    import b\nelse:\n    import c\n"
        "try:\n    import d\nexcept ImportError:\n    import e\ndef f():\n    import g\nclass H:\n    import i\n"
    )
    assert sorted(name for statement in _at_import(tree.body) for name in _imported(statement)) == list("acdei")


# Refuses everything but numpy, the standard library and edgewise, then imports the door and the whole runtime.
_WITH_NUMPY_ALONE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in {"edgewise", "numpy"} or top in sys.stdlib_module_names or top.startswith("_"):
            return None
        raise ModuleNotFoundError(f"not on the device: {name}", name=top)

sys.meta_path.insert(0, Refuse())
import importlib, pkgutil
import edgewise, edgewise.runtime
for module in pkgutil.walk_packages(edgewise.runtime.__path__, "edgewise.runtime."):
    importlib.import_module(module.name)
print("numpy" in sys.modules, len([name for name in sys.modules if name.startswith("edgewise.runtime.")]) > 5)
"""


def test_edgewise_and_its_runtime_load_where_only_numpy_is_installed(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _WITH_NUMPY_ALONE], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True"]
