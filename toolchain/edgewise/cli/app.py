"""The app: every verb, in the order of a conversion."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

import typer

import edgewise

VERBS = (
    "inspect",
    "export",
    "prune",
    "quantize",
    "build",
    "verify",
    "profile",
    "eval",
    "convert",
    "report",
    "sweep",
    "pack",
    "devices",
    "sign",
    "verify-signature",
)


def command() -> Any:
    """The command line as typer makes it of the verbs' functions."""
    return typer.main.get_command(make_app())


def make_app() -> typer.Typer:
    """One command per module of ``edgewise.cli.verbs``, named as its function without a trailing underscore."""
    app = typer.Typer(
        name="edgewise",
        help="Compile trained networks for the edge: smaller, faster, and proven to compute the same.",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 120},
    )
    app.callback()(_common)
    for verb in VERBS:
        module = importlib.import_module(f"edgewise.cli.{verb.replace('-', '_')}_verb")
        app.command(verb)(module.run)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgewise {edgewise.__version__}")
        raise typer.Exit


def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks and what libraries say (also EDGEWISE_DEBUG=1).")
    ] = False,
) -> None:
    """Compile trained networks for the edge: smaller, faster, and proven to compute the same.

    Progress goes to stderr, results to stdout. Exit codes: 0 done, 1 a gate failed, 2 bad input or usage.
    """
