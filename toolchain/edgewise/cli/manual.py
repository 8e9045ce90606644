"""The page docs/cli.md, written from the command line itself by scripts/docs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgewise.cli.app import VERBS, command

_HEAD = """\
# The command line

This page is written by `scripts/docs` from the program itself (`edgewise VERB --help` says the same).

Progress and prose go to stderr, results to stdout. With `--json`, stdout is exactly one JSON object with `schema_version`; on
failure it has `error` (`what`, `where`, `found`, `expected`, `fix`, `message`) and `exit_code` as well.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | a gate did not hold: parity, accuracy, full delegation, latency |
| 2 | bad input or usage |
| 70 | a bug in edgewise; `EDGEWISE_DEBUG=1` prints the traceback |
| 130 | interrupted by Ctrl-C (143: by SIGTERM) |

`edgewise --install-completion` sets up completion for bash, zsh, fish and PowerShell. The same verbs are Python functions:
`edgewise.export(...)`, `edgewise.quantize(...)`, `edgewise.convert(...)`; `edgewise eval` is `edgewise.evaluate(...)`.
"""


def manual() -> str:
    """The page's text."""
    group = command()
    return "\n".join([_HEAD, *(line for verb in VERBS for line in _verb(verb, group.commands[verb]))])


def _verb(name: str, verb: Any) -> Iterator[str]:
    arguments = [parameter for parameter in verb.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in verb.params if parameter.param_type_name == "option"]
    usage = " ".join([_argument(parameter) for parameter in arguments] + ["[OPTIONS]"] * bool(options))
    yield f"## edgewise {name}\n"
    yield f"{verb.help}\n"
    yield f"    edgewise {name} {usage}\n"
    yield "| | |\n|---|---|"
    for parameter in arguments:
        yield f"| `{parameter.metavar}` | {_escaped(parameter.help)} |"
    for parameter in options:
        yield f"| `{_names(parameter)}` | {_escaped(parameter.help)}{_remark(parameter)} |"
    yield ""


def _argument(parameter: Any) -> str:
    return str(parameter.metavar) if parameter.required else f"[{parameter.metavar}]"


def _names(parameter: Any) -> str:
    names = ", ".join(parameter.opts) + "".join(f" / {name}" for name in parameter.secondary_opts)
    return f"{names} {parameter.metavar}" if parameter.metavar and not parameter.is_flag else names


def _remark(parameter: Any) -> str:
    if parameter.required:
        return " **Required.**"
    shown = not parameter.is_flag and parameter.default not in (None, (), [])
    return f" Default: `{parameter.default}`." if shown else ""


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
