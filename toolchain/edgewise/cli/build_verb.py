"""``edgewise build``."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from edgewise.cli import options as o
from edgewise.cli.arguments import pairs
from edgewise.cli.show import show_autotune, show_build
from edgewise.cli.work import perform
from edgewise.errors import ToolchainError

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
Autotune = Annotated[
    bool,
    typer.Option(
        "--autotune",
        help="Try float16, int8 and int8 where it is faster on the device; keep the fastest that passes the gates.",
    ),
]
At = Annotated[
    str,
    typer.Option(
        "--at",
        metavar="DEVICE",
        help="Where --autotune measures: local, ssh://user@host[:port], or a name in devices.toml.",
    ),
]
TuneJudge = Annotated[
    str | None,
    typer.Option(
        "--judge", metavar="DATA", help="Labelled samples, apart from --calib, for --autotune's accuracy gate."
    ),
]
MemoryFile = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="FILE",
        help="What --autotune measured, by pattern; autotune.json beside the bundle if left out.",
    ),
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
    autotune: Autotune = False,
    at: At = "local",
    calib: o.Calib = None,
    judge: TuneJudge = None,
    metric: o.Metric = "top1",
    max_drop: o.MaxDrop = None,
    memory: MemoryFile = None,
    as_json: o.Json = False,
) -> None:
    """Build an ONNX file into a bundle with an engine, and check the engine against it."""
    from edgewise.verbs.build import build

    if autotune:
        refuse_with_autotune(
            engine=engine, data=data, min_sqnr=min_sqnr, swift=swift, require_full_delegation=require_full_delegation
        )
        from edgewise.verbs.autotune import autotune as tune

        chosen = partial(
            tune, model, output, target=target, device=device, calib=needed_for_autotune(calib), at=at, options=pairs(option, "--option"),
            preprocess=preprocess, judge=judge, metric=metric, max_drop=0.01 if max_drop is None else max_drop, memory=memory,
        )  # fmt: skip
        perform(chosen, show_autotune, as_json=as_json)
        return
    needs_autotune(at=None if at == "local" else at, calib=calib, judge=judge, max_drop=max_drop, memory=memory)
    verb = partial(
        build, model, output, target=target, device=device, require_full_delegation=require_full_delegation,
        options=pairs(option, "--option") | ({"engine": engine} if engine else {}), data=data, preprocess=preprocess, min_sqnr=min_sqnr,
        swift=swift,
    )  # fmt: skip
    perform(verb, show_build, as_json=as_json)


def refuse_with_autotune(**given: Any) -> None:
    """Options of a single build that mean nothing where several are tried."""
    if wrong := [name for name, value in given.items() if value]:
        raise _mixed(wrong[0], "options of --autotune alone", "Leave it out")


def needs_autotune(**given: Any) -> None:
    """Options that only --autotune reads."""
    if wrong := [name for name, value in given.items() if value is not None]:
        raise _mixed(wrong[0], "--autotune beside it", "Add --autotune, or leave it out")


def needed_for_autotune(calib: str | None) -> str:
    """The calibration data that int8 needs."""
    if calib is None:
        raise ToolchainError(
            "autotuning needs calibration data", where="--autotune", found="no --calib", expected="DATA to calibrate int8 on", fix="Add --calib DATA"
        )  # fmt: skip
    return calib


def _mixed(name: str, expected: str, fix: str) -> ToolchainError:
    option = f"--{name.replace('_', '-')}"
    return ToolchainError(
        "options do not go together", where="edgewise build", found=option, expected=expected, fix=fix
    )
