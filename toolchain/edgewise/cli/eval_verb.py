"""``edgewise eval``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edgewise.cli import options as o
from edgewise.cli.arguments import keep, pairs
from edgewise.cli.show import show_eval
from edgewise.cli.work import perform
from edgewise.runtime.progress import Progress

Network = Annotated[
    str, typer.Argument(metavar="NETWORK", help="NAME.edge, an ONNX file, or a checkpoint with --arch.")
]
Against = Annotated[
    str | None, typer.Option("--against", metavar="SOURCE", help="Another network to measure on the same samples.")
]


def run(
    network: Network,
    *,
    data: o.LabelledData,
    metric: o.Metric = "top1",
    against: Against = None,
    preprocess: o.Preprocess = None,
    limit: o.Limit = None,
    threads: o.Threads = 0,
    min_accuracy: o.MinAccuracy = None,
    max_drop: o.MaxDrop = None,
    arch: o.Arch = None,
    arch_arg: o.ArchArg = None,
    inputs: o.Input = None,
    trust_pickle: o.TrustPickle = False,
    output: o.ResultFile = None,
    as_json: o.Json = False,
) -> None:
    """Measure accuracy, before a conversion and after it with the same command."""
    from edgewise.verbs.evaluate import evaluate

    def verb(progress: Progress) -> dict[str, Any]:
        result = evaluate(
            network, data=data, metric=metric, against=against, preprocess=preprocess, limit=limit, threads=threads,
            min_accuracy=min_accuracy, max_drop=max_drop, arch=arch, arch_args=pairs(arch_arg, "--arch-arg"),
            inputs=inputs or (), trust_pickle=trust_pickle, progress=progress,
        )  # fmt: skip
        return keep(result, output)

    perform(verb, show_eval, as_json=as_json)
