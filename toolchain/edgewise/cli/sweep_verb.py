"""``edgewise sweep``."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewise.cli import options as o
from edgewise.cli.show import show_sweep
from edgewise.cli.work import perform

Recipes = Annotated[list[str], typer.Argument(metavar="RECIPE...", help="Recipes (YAML) with their targets.")]
Devices = Annotated[
    str,
    typer.Option("--devices", metavar="A,B,…", help="Devices, as `profile --device` takes them, with commas between."),
]
Folder = Annotated[str, typer.Option("--output", "-o", metavar="DIR", help="Where bundles and results go.")]
Scheduler = Annotated[
    str | None,
    typer.Option("--scheduler", metavar="tcp://HOST:PORT", help="A lab's Dask scheduler; by default a cluster here."),
]
Against = Annotated[
    str | None,
    typer.Option("--against", metavar="DIR", help="An earlier sweep's folder; by default the sweep before in DIR."),
]
MaxSlowdown = Annotated[
    float,
    typer.Option("--max-slowdown", metavar="FRACTION", min=0, help="By how much a median may be slower; else exit 1."),
]


def run(
    recipes: Recipes,
    *,
    devices: Devices,
    output: Folder,
    scheduler: Scheduler = None,
    against: Against = None,
    max_slowdown: MaxSlowdown = 0.1,
    as_json: o.Json = False,
) -> None:
    """Build recipes for devices and measure them there, one job per device at a time; run it again to go on."""
    from edgewise.verbs.sweep import sweep

    named = [name.strip() for name in devices.split(",") if name.strip()]
    perform(
        lambda progress: sweep(
            recipes, output, devices=named, scheduler=scheduler, against=against, max_slowdown=max_slowdown, progress=progress
        ),
        show_sweep,
        as_json=as_json,
    )  # fmt: skip
