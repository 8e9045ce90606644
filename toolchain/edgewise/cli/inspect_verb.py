"""``edgewise inspect``."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from edgewise.cli import options as o
from edgewise.cli.arguments import pairs
from edgewise.cli.show import show_inspect
from edgewise.cli.work import perform

AnySource = Annotated[
    str, typer.Argument(metavar="SOURCE", help="A checkpoint (state dicts with --arch), an ONNX file or a bundle.")
]
Dynamic = Annotated[
    int, typer.Option("--dynamic", metavar="N", min=1, help="What to take dynamic dims for when counting.")
]


def run(
    source: AnySource,
    *,
    target: o.Targets = None,
    device: o.Device = None,
    dynamic: Dynamic = 1,
    arch: o.Arch = None,
    arch_arg: o.ArchArg = None,
    inputs: o.Input = None,
    trust_pickle: o.TrustPickle = False,
    as_json: o.Json = False,
) -> None:
    """Say what is in a network: inputs, operators, parameters, multiply-accumulates, sparsity, support of the targets."""
    from edgewise.verbs.inspect import inspect

    verb = partial(
        inspect, source, arch=arch, arch_args=pairs(arch_arg, "--arch-arg"), inputs=inputs or (), target=target or (), device=device,
        dynamic=dynamic, trust_pickle=trust_pickle,
    )  # fmt: skip
    perform(verb, show_inspect, as_json=as_json)
