"""``edgewise pack``: what an app links to run a bundle."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import Any

from edgewise.errors import ToolchainError
from edgewise.packing.embedded import archive_with, header_of
from edgewise.packing.example import Port, example, identifier, ports_of
from edgewise.packing.image import preprocess_header
from edgewise.runtime.bundle import REFERENCE, Bundle, open_bundle
from edgewise.runtime.devices.agents import TRIPLES
from edgewise.runtime.devices.cross import LIBRARY, SOURCES, WASM, built
from edgewise.runtime.engines import model_file
from edgewise.runtime.preprocess import Preprocess
from edgewise.runtime.progress import Progress, silent
from edgewise.runtime.storage import check_replaceable, whole_folder
from edgewise.stages.profile import identify
from edgewise.verbs.result import SCHEMA_VERSION

# musl: one static program for every Linux. gnu: for programs that are linked with the glibc of a distribution.
PACKED = (
    *TRIPLES.values(),
    "x86_64-linux-gnu",
    "aarch64-linux-gnu",
    "arm-linux-gnueabihf",
    "riscv64-linux-gnu",
    WASM,
)
_HEADERS = ("edgewise.h", "edgewise.hpp", "edgewise_image.h")
_EXAMPLE = "example.c"
# docs/native-format.md: where the header has the instruction set, and what the numbers from 1 and from 16 are levels of.
_ISA_AT, _LEVELS_PER_FAMILY = 12, 16
_FAMILIES = {0: "x86_64", 1: "aarch64"}


def pack(
    bundle: str | Path, output: str | Path, *, triple: str, embed: bool = False, progress: Progress = silent
) -> dict[str, Any]:
    """Write a folder with what a C or C++ program needs to run a bundle: headers, a static library, the engine, an example.

    Args:
        bundle: ``NAME.edge`` or a zip of one, with an engine of libedgewise.
        output: the folder; replaced as a whole.
        triple: what the app is built for, one of ``PACKED``.
        embed: put the engine into the static library, so that the app links one file and ships none beside itself.
        progress: told what is being built.

    Returns:
        ``schema_version, bundle, output, triple, files`` (names with their bytes) and ``command``: how the example is compiled.

    Raises:
        RunError: not a bundle, or a folder that holds something else.
        ToolchainError: another kind of engine, or one for another processor; an unknown triple.
        DeviceError: libedgewise cannot be built for the triple.
        MissingExtraError: no Zig.
    """
    opened, target = open_bundle(bundle), Path(output)
    if embed and triple == WASM:
        raise ToolchainError(
            "cannot put the engine into the library", where=f"--triple {triple}, --embed", found="WebAssembly", expected="an engine file beside it",
            fix="Leave --embed out, and give the program the folder with the engine",
        )  # fmt: skip
    engine = _engine_for(opened, triple)
    check_replaceable(target, _HEADERS[0], "pack")
    folder = built(triple, progress)
    name = identifier(str(opened.manifest.get("name") or "net"))
    library = f"lib{name}.a" if embed else LIBRARY
    command = f"zig cc -target {triple} -Os -s -Wl,--gc-sections {_EXAMPLE} {library} -o example"
    with whole_folder(target) as draft:
        for header in _HEADERS:
            shutil.copy(SOURCES / "include" / header, draft / header)
        if embed:
            opening, include = _embed(draft, name, folder / LIBRARY, engine, triple)
        else:
            shutil.copy(folder / LIBRARY, draft / library)
            shutil.copy(engine, draft / f"{name}.engine")
            opening, include = f'ew_open("{name}.engine", &engine)', ""
        taken = {f"{name}_engine"}
        inputs, outputs = _ports(opened, taken)
        text = example(name, inputs, outputs, opening=opening, include=include, command=command)
        (draft / _EXAMPLE).write_text(text, encoding="utf-8")
        if told := opened.manifest.get("preprocess"):
            steps = preprocess_header(name, Preprocess.from_json(told))
            (draft / f"{name}_preprocess.h").write_text(steps, encoding="utf-8")
        files = {file.name: file.stat().st_size for file in sorted(draft.iterdir())}
    return {
        "schema_version": SCHEMA_VERSION,
        "bundle": identify(bundle),
        "output": str(target),
        "triple": triple,
        "files": files,
        "command": command,
    }


def _engine_for(bundle: Bundle, triple: str) -> Path:
    if triple not in PACKED:
        raise ToolchainError(
            "cannot pack for this triple", where=f"--triple {triple}", found=repr(triple),
            expected=f"one of {', '.join(PACKED)}", fix="Choose the one of the device's processor and C library",
        )  # fmt: skip
    kind = bundle.manifest["engine"]["kind"]
    if kind != "native":
        raise ToolchainError(
            "cannot pack the bundle", where=str(bundle.path), found=f"an engine of kind {kind!r}", expected="an engine of libedgewise",
            fix="Build it with --target cpu --engine native",
        )  # fmt: skip
    file = model_file(bundle)
    with file.open("rb") as stream:
        (level,) = struct.unpack_from("<I", stream.read(_ISA_AT + 4).ljust(_ISA_AT + 4, b"\0"), _ISA_AT)
    family = _FAMILIES.get(level // _LEVELS_PER_FAMILY, "another processor") if level else ""
    if not triple.startswith(family):
        raise ToolchainError(
            "the engine is for another processor", where=str(bundle.path), found=f"an engine for {family}, level {level}",
            expected=f"one that runs on {triple}", fix="Build the bundle again with --device for that device's processor, or --device generic",
        )  # fmt: skip
    return file


def _embed(draft: Path, name: str, library: Path, engine: Path, triple: str) -> tuple[str, str]:
    symbol, macro = f"{name}_engine", f"{name.upper()}_ENGINE_BYTES"
    archive_with(library, engine, symbol, triple, draft / f"lib{name}.a")
    header = f"{name}.h"
    (draft / header).write_text(header_of(name, symbol, macro, engine.stat().st_size), encoding="utf-8")
    return f"ew_open_memory({symbol}, {macro}, &engine)", header


def _ports(bundle: Bundle, taken: set[str]) -> tuple[list[Port], list[Port]]:
    shapes: dict[str, tuple[int, ...]] = {}
    if REFERENCE in bundle.manifest["files"]:
        for sample in bundle.reference():
            shapes |= {name: array.shape for name, array in (sample[0] if sample else {}).items()}
    return ports_of(bundle.inputs, shapes, taken), ports_of(bundle.outputs, shapes, taken)
