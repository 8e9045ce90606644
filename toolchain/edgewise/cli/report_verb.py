"""``edgewise report``."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewise.cli import options as o
from edgewise.cli.show import show_report
from edgewise.cli.work import perform

Folders = Annotated[list[str], typer.Argument(metavar="DIR...", help="Bundles, or folders that hold some.")]
Page = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="FILE", help="The page; by default report.html in the first DIR."),
]


def run(folders: Folders, *, output: Page = None, as_json: o.Json = False) -> None:
    """Write one page about bundles: latency, accuracy, parity, size, layers. It needs no network to be looked at."""
    from edgewise.verbs.report import report

    perform(lambda progress: report(folders, output), show_report, as_json=as_json)
