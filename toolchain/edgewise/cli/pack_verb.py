"""``edgewise pack``."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewise.cli import options as o
from edgewise.cli.show import show_pack
from edgewise.cli.work import perform


def _triples(incomplete: str) -> list[str]:
    from edgewise.verbs.pack import PACKED

    return [triple for triple in PACKED if triple.startswith(incomplete)]


Triple = Annotated[
    str,
    typer.Option(
        "--triple",
        metavar="TRIPLE",
        autocompletion=_triples,
        help="What the app is built for: x86_64, aarch64 or riscv64 with -linux-musl or -linux-gnu, arm-linux-musleabihf, arm-linux-gnueabihf or wasm32-wasi.",
    ),
]
Folder = Annotated[str, typer.Option("--output", "-o", metavar="DIR", help="The folder to write.")]
Embed = Annotated[
    bool, typer.Option("--embed", help="Put the engine into the library: one file to link, none to ship.")
]


def run(bundle: o.BundlePath, *, triple: Triple, output: Folder, embed: Embed = False, as_json: o.Json = False) -> None:
    """Write what a C or C++ app needs to run a bundle: headers, a static library, the engine, and an example."""
    from edgewise.verbs.pack import pack

    perform(
        lambda progress: pack(bundle, output, triple=triple, embed=embed, progress=progress), show_pack, as_json=as_json
    )
