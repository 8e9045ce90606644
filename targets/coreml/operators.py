"""The list of operators for the docs: ``python -m edgewise.targets.coreml.operators docs/targets-coreml.md`` writes it there."""

from __future__ import annotations

import sys
from pathlib import Path

from edgewise.targets.coreml.row import Row
from edgewise.targets.coreml.table import families

BEGIN, END = "<!-- operators: begin -->", "<!-- operators: end -->"


def operator_list() -> str:
    """A Markdown table: one line per family, with the limits of its operators."""
    lines = ["| family | operators | limits |", "|---|---|---|"]
    for name, rows in families().items():
        taken = ", ".join(f"`{row.op}`" for row in sorted(rows, key=lambda row: row.op))
        lines.append(f"| {name} | {taken} | {'; '.join(_limits(rows))} |")
    return "\n".join(lines)


def _limits(rows: tuple[Row, ...]) -> list[str]:
    limits = [f"`{row.op}`: {row.note}" for row in rows if row.note]
    return limits + [f"`{row.op}` from iOS {row.ios}" for row in rows if row.ios > 15 and not row.note]


def with_list(page: str) -> str:
    """The page with the list between its two marks."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{operator_list()}\n{END}{tail}"


def main(page: Path) -> None:
    """Rewrite the list in a page."""
    page.write_text(with_list(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
