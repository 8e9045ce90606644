"""Tables for people. Rich is imported when something is printed, not before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from edgewise.numbers import number, percent, sqnr

if TYPE_CHECKING:
    from rich.console import Console


def facts(console: Console, rows: Iterable[tuple[str, Any]]) -> None:
    """Names and values in two columns; rows without a value are left out."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        if value not in (None, "", [], {}):
            table.add_row(name, str(value))
    console.print(table)


def table(console: Console, title: str, head: Sequence[str], rows: Iterable[Sequence[Any]], *, right: int = 0) -> None:
    """A table with a title; the last ``right`` columns are numbers. Nothing is printed without rows."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(head):
        made.add_column(name, justify="right" if index >= len(head) - right else "left", overflow="fold")
    for row in rows:
        made.add_row(*("–" if cell is None else str(cell) for cell in row))
    if made.row_count:
        console.print()
        console.print(made)


def parity_rows(outputs: Iterable[dict[str, Any]]) -> list[list[Any]]:
    """One row per output, for the columns of :data:`PARITY`."""
    return [
        [
            entry["name"],
            sqnr(entry),
            number(entry["max_abs_error"]),
            None if entry["cosine"] is None else f"{entry['cosine']:.6f}",
            percent(entry["argmax_agreement"]),
            entry["samples"],
        ]
        for entry in outputs
    ]


PARITY = ("output", "SQNR", "largest error", "cosine", "argmax agrees", "samples")
