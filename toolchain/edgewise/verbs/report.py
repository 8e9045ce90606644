"""``edgewise.report``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgewise.page.collect import collect
from edgewise.page.render import render
from edgewise.runtime.storage import whole_file
from edgewise.verbs.result import SCHEMA_VERSION


def report(places: Sequence[str | Path], output: str | Path | None = None) -> dict[str, Any]:
    """Write one self-contained HTML page about bundles.

    Args:
        places: bundles, or folders with bundles somewhere below; results (``*.json`` of profile, eval and verify) that lie
            beside a bundle are shown with it.
        output: the page; None is ``report.html`` in the first place (beside it, if that is a bundle itself).

    Returns:
        ``schema_version, output, bundles`` (their paths) and ``problems`` (sentences that are on the page too).

    Raises:
        ToolchainError: no bundle there.
    """
    paths = [Path(place) for place in places]
    found = collect(paths)
    holds_bundles = not found.entries or found.entries[0].path != paths[0]
    page = Path(output) if output else (paths[0] if holds_bundles else paths[0].parent) / "report.html"
    with whole_file(page) as draft:
        draft.write_text(render(found), encoding="utf-8")
    return {
        "schema_version": SCHEMA_VERSION,
        "output": str(page),
        "bundles": [str(entry.path) for entry in found.entries],
        "problems": found.problems,
    }
