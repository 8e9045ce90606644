"""ONNX's backend node tests through libedgewise (benchmarks/node_tests.py): all that are taken pass, and the page says which."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[4]
pytestmark = pytest.mark.usefixtures("libedgewise")


@pytest.fixture(scope="module")
def script(onnx_node_tests: list[Any]) -> Any:
    """benchmarks/node_tests.py."""
    spec = importlib.util.spec_from_file_location("node_tests", ROOT / "benchmarks" / "node_tests.py")
    assert spec and spec.loader
    sys.modules["node_tests"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.all_cases = lambda: onnx_node_tests  # type: ignore[attr-defined]
    return module


@pytest.mark.slow
@pytest.mark.conformance
def test_what_is_taken_is_computed_as_onnx_does(script: Any) -> None:
    rows = script.measure([])
    assert [line for row in rows for line in row.failed] == []
    check_page(script, "node tests", script.table(rows))


@pytest.mark.slow
@pytest.mark.conformance
def test_models_that_are_taken_are_computed_as_onnx_does(script: Any) -> None:
    rows = script.measure_models()
    assert [line for row in rows for line in row.failed] == []
    check_page(script, "model tests", script.model_table(rows))
    assert {row.op: row.taken for row in rows}["real"] == 9


def check_page(script: Any, name: str, table: str) -> None:
    page = (ROOT / "docs" / "native-operators.md").read_text(encoding="utf-8")
    assert script.with_table(page, name, table) == page, (
        "run: python benchmarks/node_tests.py --write docs/native-operators.md"
    )


@pytest.mark.slow
def test_an_engine_that_is_wrong_fails(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in script.cases() if case.name == "test_relu")
    row = script.Row("Relu")
    script._judge(case, row)
    assert (row.taken, row.failed) == (1, [])
    run = script._run
    monkeypatch.setattr(
        script, "_run", lambda model, inputs: {name: one + 1 for name, one in run(model, inputs).items()}
    )
    script._judge(case, row)
    assert len(row.failed) == 1 and row.failed[0].startswith("test_relu: ")
