"""``edgewise verify``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edgewise.cli import options as o
from edgewise.cli.arguments import keep, pairs
from edgewise.cli.show import show_verify
from edgewise.cli.work import perform
from edgewise.runtime.progress import Progress

Against = Annotated[
    str | None,
    typer.Option(
        "--against",
        metavar="SOURCE",
        help="The network to compare with: a checkpoint (with --arch), ONNX or a bundle. Without it, the bundle's own reference.",
    ),
]
PerLayer = Annotated[
    bool, typer.Option("--per-layer", help="Compare inner tensors too, and name the first layer that diverges.")
]
Samples = Annotated[int, typer.Option("--samples", metavar="N", min=1, help="How many samples of DATA to compare on.")]


def run(
    bundle: o.BundlePath,
    *,
    against: Against = None,
    device: o.Where = "local",
    per_layer: PerLayer = False,
    threads: o.Threads = 0,
    data: o.Data = None,
    samples: Samples = 16,
    preprocess: o.Preprocess = None,
    min_sqnr: o.MinSqnr = None,
    arch: o.Arch = None,
    arch_arg: o.ArchArg = None,
    inputs: o.Input = None,
    trust_pickle: o.TrustPickle = False,
    output: o.ResultFile = None,
    as_json: o.Json = False,
) -> None:
    """Prove that a bundle computes what its source computes, output by output and on request layer by layer."""
    from edgewise.verbs.verify import verify

    def verb(progress: Progress) -> dict[str, Any]:
        result = verify(
            bundle, against=against, device=device, data=data, samples=samples, preprocess=preprocess, per_layer=per_layer,
            min_sqnr=min_sqnr, threads=threads, arch=arch, arch_args=pairs(arch_arg, "--arch-arg"), inputs=inputs or (),
            trust_pickle=trust_pickle, progress=progress,
        )  # fmt: skip
        return keep(result, output)

    perform(verb, show_verify, as_json=as_json)
