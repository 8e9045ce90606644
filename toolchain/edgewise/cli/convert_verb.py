"""``edgewise convert``."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from edgewise.cli import options as o
from edgewise.cli.arguments import pairs
from edgewise.cli.show import show_convert
from edgewise.cli.work import perform

OptionalSource = Annotated[
    str | None,
    typer.Argument(metavar="SOURCE", help="As in export; a recipe may name it instead.", show_default=False),
]
Folder = Annotated[
    str, typer.Option("--output", "-o", metavar="DIR", help="The folder for bundles, results and report.html.")
]
RecipeFile = Annotated[
    str | None, typer.Option("--recipe", metavar="FILE", help="A recipe (docs/recipe.md); options go over it.")
]
Name = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="What the files are named; by default as SOURCE.")
]
NoCache = Annotated[
    bool,
    typer.Option("--no-cache", help="Compute every stage anew, even where an earlier run left it under DIR/.cache."),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        rich_help_panel="Data",
        help="Samples to compare outputs and to measure accuracy on, before and after; labelled, but for --metric agreement or none.",
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="METRIC",
        rich_help_panel="Data",
        help="top1, top5, agreement (with the source's classes), module:function, or none: outputs are compared alone.",
    ),
]
Threads = Annotated[
    int | None, typer.Option("--threads", metavar="N", min=0, help="Threads when profiling; 0 is all cores.")
]
ProfileOn = Annotated[
    str | None,
    typer.Option(
        "--profile-on",
        metavar="DEVICE",
        help="Where to check and measure: local (the default), ssh://user@host, adb:SERIAL, or a name in devices.toml.",
    ),
]
PerLayer = Annotated[
    bool | None, typer.Option("--per-layer/--no-per-layer", help="Whether to time every layer when profiling.")
]


def run(
    source: OptionalSource = None,
    *,
    output: Folder,
    target: o.Targets = None,
    device: o.Devices = None,
    recipe: RecipeFile = None,
    name: Name = None,
    arch: o.Arch = None,
    arch_arg: o.ArchArg = None,
    inputs: o.Input = None,
    opset: o.Opset = None,
    drop_output: o.DropOutput = None,
    no_fuse: o.NoFuse = False,
    pattern: o.Pattern = None,
    sparsity: o.Sparsity = None,
    skip: o.Skip = None,
    criterion: o.Criterion = None,
    densities: o.Densities = None,
    reconstruct: o.Reconstruct = False,
    scheme: o.Scheme = None,
    calib: o.Calib = None,
    method: o.Method = None,
    samples: o.Samples = None,
    keep_float: o.KeepFloat = None,
    wide: o.Wide = None,
    rounding: o.Rounding = None,
    judge: o.Judge = None,
    max_bytes: o.MaxBytes = None,
    floor: o.Floor = None,
    float_share: o.FloatShare = None,
    allow_random_calibration: o.RandomCalibration = False,
    engine: o.Engine = None,
    data: Data = None,
    metric: Metric = None,
    limit: o.Limit = None,
    preprocess: o.Preprocess = None,
    profile_on: ProfileOn = None,
    threads: Threads = None,
    per_layer: PerLayer = None,
    min_sqnr: o.MinSqnr = None,
    min_accuracy: o.MinAccuracy = None,
    max_drop: o.MaxDrop = None,
    max_latency_ms: o.MaxLatency = None,
    require_full_delegation: o.FullDelegation = False,
    no_cache: NoCache = False,
    trust_pickle: o.TrustPickle = False,
    as_json: o.Json = False,
) -> None:
    """All of it in one go: export, prune, quantize, build, verify, profile, and a page to look at."""
    from edgewise.verbs.convert import convert

    options = {
        "name": name,
        "arch": arch,
        "arch_args": pairs(arch_arg, "--arch-arg") or None,
        "inputs": tuple(inputs or ()),
        "preprocess": preprocess,
        "export.opset": opset,
        "export.drop_outputs": tuple(drop_output or ()),
        "export.fuse": False if no_fuse else None,
        "prune.pattern": pattern,
        "prune.sparsity": sparsity,
        "prune.skip": tuple(skip or ()),
        "prune.criterion": criterion,
        "prune.densities": densities,
        "prune.reconstruct": reconstruct or None,
        "quantize.scheme": scheme,
        "quantize.calib": calib,
        "quantize.method": method,
        "quantize.samples": samples,
        "quantize.keep_float": tuple(keep_float or ()),
        "quantize.wide": tuple(wide or ()),
        "quantize.rounding": rounding,
        "quantize.judge": judge,
        "quantize.max_bytes": max_bytes,
        "quantize.floor": floor,
        "quantize.float_share": float_share,
        "quantize.max_drop": max_drop if judge else None,
        "quantize.metric": metric if judge else None,
        "quantize.allow_random_calibration": allow_random_calibration or None,
        "verify.data": data,
        "verify.metric": metric,
        "verify.limit": limit,
        "verify.min_sqnr": min_sqnr,
        "verify.min_accuracy": min_accuracy,
        "verify.max_drop": max_drop,
        "profile.device": profile_on,
        "profile.threads": threads,
        "profile.per_layer": per_layer,
        "profile.max_latency_ms": max_latency_ms,
        "build.options": {"engine": engine} if engine else None,
        "build.require_full_delegation": require_full_delegation or None,
    }
    verb = partial(
        convert, source, output, target=target or (), device=device or (), recipe=recipe, options=options, cache=not no_cache,
        trust_pickle=trust_pickle,
    )  # fmt: skip
    perform(verb, show_convert, as_json=as_json)
