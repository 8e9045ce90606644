"""``edgewise export``."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from edgewise.cli import options as o
from edgewise.cli.arguments import pairs
from edgewise.cli.show import show_export
from edgewise.cli.work import perform

ParityGate = Annotated[
    float, typer.Option("--min-sqnr", metavar="DB", help="The parity gate: least SQNR of every output, in dB.")
]


def run(
    source: o.Source,
    *,
    output: o.OutputFile,
    arch: o.Arch = None,
    arch_arg: o.ArchArg = None,
    inputs: o.Input = None,
    opset: o.Opset = None,
    drop_output: o.DropOutput = None,
    no_fuse: o.NoFuse = False,
    data: o.Data = None,
    preprocess: o.Preprocess = None,
    min_sqnr: ParityGate = 60.0,
    trust_pickle: o.TrustPickle = False,
    as_json: o.Json = False,
) -> None:
    """Export a trained network to ONNX, and prove that the ONNX computes the same."""
    from edgewise.verbs.export import export

    verb = partial(
        export, source, output, arch=arch, arch_args=pairs(arch_arg, "--arch-arg"), inputs=inputs or (), data=data,
        preprocess=preprocess, opset=opset, min_sqnr=min_sqnr, drop_outputs=drop_output or (), fuse=not no_fuse,
        trust_pickle=trust_pickle,
    )  # fmt: skip
    perform(verb, show_export, as_json=as_json)
