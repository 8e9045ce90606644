"""``edgewise prune``."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from edgewise.cli import options as o
from edgewise.cli.show import show_prune
from edgewise.cli.work import perform

Pattern = Annotated[
    str,
    typer.Option(
        "--pattern",
        metavar="PATTERN",
        help="block:RxC, 2:4, N:M, unstructured; smaller tensors: channel, head, width, low-rank, slice.",
    ),
]
Sparsity = Annotated[
    float, typer.Option("--sparsity", metavar="FRACTION", help="The fraction of weights to remove.", min=0, max=1)
]
Criterion = Annotated[
    str,
    typer.Option(
        "--criterion", metavar="NAME", help="magnitude; or, with --calib, wanda or second_order, which loses far less."
    ),
]
Densities = Annotated[
    str,
    typer.Option(
        "--densities",
        metavar="RULE",
        help="How the sparsity is shared out over layers: uniform, erk, global; with --calib: sensitivity, learned.",
    ),
]
Costs = Annotated[
    str | None,
    typer.Option(
        "--costs", metavar="FILE", help="A JSON table of what layers take at a density; with --densities sensitivity."
    ),
]
Reconstruct = Annotated[
    bool,
    typer.Option(
        "--reconstruct", help="Then train what stays on --calib, without labels, towards the network before (PyTorch)."
    ),
]
Tables = Annotated[
    bool, typer.Option("--tables", help="Prune embeddings as well, each row by magnitude; with --pattern unstructured.")
]
Samples = Annotated[int, typer.Option("--samples", metavar="N", min=1, help="How many samples to prune by.")]
Calib = Annotated[
    str | None,
    typer.Option(
        "--calib", metavar="DATA", help="Samples to prune by, and on which to measure what the pruning changes."
    ),
]


def run(
    model: o.Model,
    *,
    output: o.OutputFile,
    pattern: Pattern,
    sparsity: Sparsity,
    skip: o.Skip = None,
    criterion: Criterion = "magnitude",
    calib: Calib = None,
    samples: Samples = 512,
    densities: Densities = "uniform",
    costs: Costs = None,
    reconstruct: Reconstruct = False,
    tables: Tables = False,
    preprocess: o.Preprocess = None,
    as_json: o.Json = False,
) -> None:
    """Remove weights of an ONNX file, in a pattern that an engine can use."""
    from edgewise.verbs.prune import prune

    verb = partial(
        prune, model, output, pattern=pattern, sparsity=sparsity, skip=skip or (), criterion=criterion, calib=calib,
        samples=samples, densities=densities, costs=costs, reconstruct=reconstruct, tables=tables,
        preprocess=preprocess,
    )  # fmt: skip
    perform(verb, show_prune, as_json=as_json)
