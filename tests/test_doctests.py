"""The examples in docstrings say what the installed package does."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]
_FOLDERS = {
    "exporter": "edgewise.exporter",
    "quantize": "edgewise.quantize",
    "targets": "edgewise.targets",
    "runtime": "edgewise.runtime",
    "toolchain/edgewise": "edgewise",
}


def _modules() -> list[str]:
    """Modules with an example in them, by their installed names."""
    found = []
    for folder, package in _FOLDERS.items():
        for file in sorted((_ROOT / folder).rglob("*.py")):
            if ">>>" in file.read_text(encoding="utf-8"):
                names = file.relative_to(_ROOT / folder).with_suffix("").parts
                found.append(".".join([package, *(name for name in names if name != "__init__")]))
    return found


def test_there_are_examples() -> None:
    assert _modules()


@pytest.mark.parametrize("module", _modules())
def test_the_examples_of_a_module(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0
