"""The page about the target: the list of operators and the options are those of the code."""

from __future__ import annotations

from pathlib import Path

from edgewise.targets.coreml.operators import operator_list, with_list
from edgewise.targets.coreml.options import DEPLOYMENT_TARGETS, OPTIONS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "targets-coreml.md"


def test_the_list_of_operators_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert len(operator_list().splitlines()) > 15
    assert with_list(page) == page, "run: python -m edgewise.targets.coreml.operators docs/targets-coreml.md"


def test_every_option_is_described() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in OPTIONS)
    assert all(f"`{name}`" in page for name in DEPLOYMENT_TARGETS)
