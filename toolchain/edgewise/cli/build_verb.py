"""``edgewise build``."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from edgewise.cli import options as o
from edgewise.cli.arguments import pairs
from edgewise.cli.show import show_build
from edgewise.cli.work import perform

OutputBundle = Annotated[
    str, typer.Option("--output", "-o", metavar="NAME.edge", help="The bundle to write; whole or not at all.")
]
BuildOption = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="An option of the target; repeat it."),
]
SwiftPackage = Annotated[
    str | None,
    typer.Option("--swift", metavar="DIR", help="Also write a Swift package around the bundle (target coreml)."),
]


def run(
    model: o.Model,
    *,
    output: OutputBundle,
    target: o.Target,
    device: o.Device = None,
    engine: o.Engine = None,
    option: BuildOption = None,
    data: o.Data = None,
    preprocess: o.Preprocess = None,
    require_full_delegation: o.FullDelegation = False,
    min_sqnr: o.MinSqnr = None,
    swift: SwiftPackage = None,
    as_json: o.Json = False,
) -> None:
    """Build an ONNX file into a bundle with an engine, and check the engine against it."""
    from edgewise.verbs.build import build

    verb = partial(
        build, model, output, target=target, device=device, require_full_delegation=require_full_delegation,
        options=pairs(option, "--option") | ({"engine": engine} if engine else {}), data=data, preprocess=preprocess, min_sqnr=min_sqnr,
        swift=swift,
    )  # fmt: skip
    perform(verb, show_build, as_json=as_json)
