"""The pages on targets and devices name every key that there is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgewise.targets.cpu.ort.build import OPTIONS as CPU_OPTIONS
from edgewise.targets.devices import FACTS
from edgewise.targets.tensorrt.settings import OPTIONS as TENSORRT_OPTIONS

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize(
    ("page", "options"), [("targets-cpu.md", CPU_OPTIONS), ("targets-tensorrt.md", TENSORRT_OPTIONS)]
)
def test_a_targets_page_lists_its_options_with_their_values(page: str, options: Mapping[str, Any]) -> None:
    rows = {
        line.split("|")[1].strip(): line for line in (DOCS / page).read_text().splitlines() if line.startswith("| `")
    }
    for name, option in options.items():
        assert f"`{name}`" in rows, f"{page} has no row for {name}"
        assert all(f"`{choice}`" in rows[f"`{name}`"] for choice in option.choices)


def test_the_page_on_devices_lists_every_fact() -> None:
    text = (DOCS / "devices.md").read_text()
    for key, (_, meaning) in FACTS.items():
        assert f"| `{key}` |" in text and meaning in text, key
