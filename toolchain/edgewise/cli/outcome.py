"""From exceptions to exit codes: one sentence for a user's mistake, no traceback but on request, one JSON object with ``--json``."""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

import typer

from edgewise.errors import GateFailedError, ToolchainError, error_entry
from edgewise.runtime.errors import EdgewiseError

SCHEMA_VERSION = 1
BUG = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED = 130

# typer carries its own copy of click in some versions and needs click in others; both have this chain.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def run(argv: list[str]) -> int:
    """Run the command line with these arguments; gives the exit code and never raises but for ``SystemExit``."""
    from edgewise.cli.app import command

    wants_json = "--json" in argv
    try:
        return int(command().main(args=argv or ["--help"], prog_name="edgewise", standalone_mode=False) or 0)
    except EdgewiseError as error:
        return _fail(error, wants_json, argv)
    except _UsageError as error:
        return _fail(_usage(error), wants_json, argv)
    except (OSError, MemoryError) as error:
        return _fail(_system(error), wants_json, argv)
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted; nothing half-written was left behind", INTERRUPTED, wants_json)
    except Exception as error:  # noqa: BLE001  the last resort: a bug is said so, in one line
        if debugging(argv):
            traceback.print_exc()
        hint = "" if debugging(argv) else "; run it again with EDGEWISE_DEBUG=1 for the traceback"
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return _say(f"this is a bug in edgewise, please report it: {text}{hint}", BUG, wants_json)


def debugging(argv: list[str]) -> bool:
    """Whether tracebacks are wanted."""
    return "--debug" in argv or os.environ.get("EDGEWISE_DEBUG", "") not in ("", "0")


def _fail(error: EdgewiseError, wants_json: bool, argv: list[str]) -> int:
    if debugging(argv):
        traceback.print_exception(error)
    print_error(str(error))
    if wants_json:
        result: dict[str, Any] = error.result if isinstance(error, GateFailedError) else {}
        print_json(
            {"schema_version": SCHEMA_VERSION, **result, "error": error_entry(error), "exit_code": error.exit_code}
        )
    return error.exit_code


def _say(text: str, code: int, wants_json: bool) -> int:
    print_error(text)
    if wants_json:
        print_json({"schema_version": SCHEMA_VERSION, "error": {"message": text, "exit_code": code}, "exit_code": code})
    return code


def _usage(error: Exception) -> EdgewiseError:
    context = getattr(error, "ctx", None)
    place = context.command_path if context else "edgewise"
    text = str(error.format_message() if hasattr(error, "format_message") else error)
    return ToolchainError(" ".join(text.split()).rstrip("."), where=place, fix=f"See `{place} --help`")


def _system(error: OSError | MemoryError) -> EdgewiseError:
    """What the system refused, and no part of edgewise has put into words."""
    if isinstance(error, MemoryError):
        return ToolchainError(
            "out of memory", found=str(error), fix="Use a smaller network, fewer samples or another machine"
        )
    return ToolchainError(
        "the system refused a file or a connection",
        where=str(error.filename or ""),
        found=error.strerror or str(error),
        fix="Check that the path exists, is readable or writable, and that there is room",
    )


def print_error(text: str) -> None:
    """One line on stderr, its first word in red on a terminal that has colours."""
    red = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    sys.stderr.write(("\x1b[1;31merror:\x1b[0m " if red else "error: ") + text + "\n")


def print_json(result: dict[str, Any]) -> None:
    """The one object on stdout."""
    sys.stdout.write(json.dumps(result, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()
