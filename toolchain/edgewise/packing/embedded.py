"""An engine file as an object file, so that an app ships nothing beside its program."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from edgewise.errors import ToolchainError
from edgewise.runtime.devices.cross import LIBRARY, zig

_TAIL_LINES = 3
# 64 bytes are what ew_open_memory asks for. The last line: nothing of this needs a stack that may be executed.
_ASSEMBLY = """\
    .section .rodata.{symbol},"a",%progbits
    .balign 64
    .globl {symbol}
    .type {symbol}, %object
{symbol}:
    .incbin "engine"
    .size {symbol}, . - {symbol}
    .section .note.GNU-stack,"",%progbits
"""
_HEADER = """\
/* The engine of {name}, linked into the program: ew_open_memory({symbol}, {macro}, &engine) */
#ifndef {macro}
#include <stddef.h>
#define {macro} ((size_t){size})
#ifdef __cplusplus
extern "C" {{
#endif
extern const unsigned char {symbol}[];
#ifdef __cplusplus
}}
#endif
#endif
"""


def header_of(name: str, symbol: str, macro: str, size: int) -> str:
    """The header that declares the engine's bytes."""
    return _HEADER.format(name=name, symbol=symbol, macro=macro, size=size)


def archive_with(library: Path, engine: Path, symbol: str, triple: str, target: Path) -> None:
    """Write a static library that holds libedgewise and the engine.

    Raises:
        ToolchainError: the engine cannot be assembled for the triple.
        MissingExtraError: no Zig.
    """
    tool = str(zig())
    with tempfile.TemporaryDirectory(prefix="edgewise-") as name:
        work = Path(name)
        shutil.copy(engine, work / "engine")
        (work / "engine.s").write_text(_ASSEMBLY.format(symbol=symbol), encoding="utf-8")
        shutil.copy(library, work / LIBRARY)
        _call([tool, "cc", "-target", triple, "-c", "engine.s", "-o", "engine.o"], work, triple)
        _call([tool, "ar", "rs", LIBRARY, "engine.o"], work, triple)
        shutil.move(work / LIBRARY, target)


def _call(command: list[str], folder: Path, triple: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode != 0:
        said = " | ".join((done.stdout + done.stderr).strip().splitlines()[-_TAIL_LINES:])
        raise ToolchainError(
            "cannot make the engine an object file", where=triple, found=said, expected="a triple that Zig knows",
            fix="Leave --embed out and ship the engine file beside the app",
        )  # fmt: skip
