"""``edgewise prune``."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from edgewise.cli import options as o
from edgewise.cli.show import show_prune
from edgewise.cli.work import perform

Pattern = Annotated[
    str, typer.Option("--pattern", metavar="PATTERN", help="block:RxC, 2:4, N:M, channel or unstructured.")
]
Sparsity = Annotated[
    float, typer.Option("--sparsity", metavar="FRACTION", help="The fraction of weights to remove.", min=0, max=1)
]
Calib = Annotated[
    str | None, typer.Option("--calib", metavar="DATA", help="Samples on which to measure what the pruning changes.")
]


def run(
    model: o.Model,
    *,
    output: o.OutputFile,
    pattern: Pattern,
    sparsity: Sparsity,
    skip: o.Skip = None,
    calib: Calib = None,
    preprocess: o.Preprocess = None,
    as_json: o.Json = False,
) -> None:
    """Remove the smallest weights of an ONNX file, in a pattern that an engine can use."""
    from edgewise.verbs.prune import prune

    verb = partial(
        prune, model, output, pattern=pattern, sparsity=sparsity, skip=skip or (), calib=calib, preprocess=preprocess
    )
    perform(verb, show_prune, as_json=as_json)
