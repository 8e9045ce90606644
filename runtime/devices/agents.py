"""The agent for a device: ``edgewise-bench``, built for the device's processor with Zig's C++ compiler and kept in a cache."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from edgewise.runtime.devices.errors import DeviceError
from edgewise.runtime.extras import needs
from edgewise.runtime.progress import Progress, silent
from edgewise.runtime.storage import whole_folder

PROGRAM = "edgewise-bench"
TRIPLES = {
    "x86_64": "x86_64-linux-musl",
    "aarch64": "aarch64-linux-musl",
    "armv7": "arm-linux-musleabihf",
    "riscv64": "riscv64-linux-musl",
}
# What `uname -m` says, in our words. A 64-bit kernel may run 32-bit programs only: then the address says the triple.
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "armv7l": "armv7", "armv8l": "armv7"}
_SOURCES = Path(__file__).resolve().parent.parent / "native"
_BUILT_FROM = ("CMakeLists.txt", "cmake", "include", "src", "bench")
_TAIL_LINES = 3


def triple_of(machine: str, where: str) -> str:
    """The triple for what ``uname -m`` says.

    Raises:
        DeviceError: there is no agent for that processor.
    """
    name = _MACHINES.get(machine, machine)
    if name not in TRIPLES:
        raise DeviceError(
            "there is no agent for the device's processor", where=where, found=f"uname -m says {machine!r}",
            expected=f"one of {', '.join(TRIPLES)}", fix="Name a triple that it runs in devices.toml (docs/devices.md)",
        )  # fmt: skip
    return TRIPLES[name]


def agent_for(triple: str, progress: Progress = silent) -> Path:
    """The static program for a triple; the first time it is built, which takes a minute or two.

    A folder of ready ones, ``TRIPLE/edgewise-bench``, can be named in ``EDGEWISE_AGENTS``.

    Raises:
        DeviceError: an unknown triple, or the build fails.
        MissingExtraError: no Zig, CMake or Ninja.
    """
    if triple not in TRIPLES.values():
        raise DeviceError(
            "there is no agent for the triple", where="devices.toml", found=repr(triple),
            expected=f"one of {', '.join(TRIPLES.values())}", fix="Correct it, or leave it out",
        )  # fmt: skip
    if ready := os.environ.get("EDGEWISE_AGENTS"):
        return _ready(Path(ready), triple)
    folder = built(triple, ("edgewise_bench",), progress)
    return folder / PROGRAM


def built(triple: str, targets: tuple[str, ...], progress: Progress = silent) -> Path:
    """A folder of the cache that holds what CMake made of these targets for a triple.

    Raises:
        DeviceError: the build fails.
        MissingExtraError: no Zig, CMake or Ninja.
    """
    with needs("devices"):
        import ziglang
    zig = Path(ziglang.__file__).with_name("zig")
    folder = _cache() / _key(triple, targets)
    if not folder.is_dir():
        progress(f"build the agent for {triple}", 0, None)
        with whole_folder(folder) as draft:
            _build(triple, targets, zig, draft)
    return folder


def _ready(folder: Path, triple: str) -> Path:
    file = folder / triple / PROGRAM
    if not file.is_file():
        raise DeviceError(
            "there is no agent for the device", where="EDGEWISE_AGENTS", found=f"no {file}", expected="the program built for it",
            fix="Put it there, or unset EDGEWISE_AGENTS to have it built",
        )  # fmt: skip
    return file


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgewise" / "native"


def _key(triple: str, targets: tuple[str, ...]) -> str:
    """Of the sources and the compiler: whatever changes makes another."""
    digest = hashlib.sha256(repr((triple, targets, importlib.metadata.version("ziglang"))).encode())
    for root in (_SOURCES / name for name in _BUILT_FROM):
        for file in sorted(root.rglob("*")) if root.is_dir() else [root]:
            if file.is_file():
                digest.update(file.relative_to(_SOURCES).as_posix().encode() + b"\0" + file.read_bytes())
    return f"{triple}-{digest.hexdigest()[:16]}"


def _build(triple: str, targets: tuple[str, ...], zig: Path, draft: Path) -> None:
    work = draft / "build"
    work.mkdir()
    for tool, words in {
        "c++": ["c++", "-target", triple],
        "cc": ["cc", "-target", triple],
        "ar": ["ar"],
        "ranlib": ["ranlib"],
    }.items():
        _script(work / tool, [str(zig), *words])
    cmake, ninja = _program("cmake"), _program("ninja")
    _call(
        [
            cmake, "-G", "Ninja", "-S", str(_SOURCES), "-B", str(work), f"-DCMAKE_MAKE_PROGRAM={ninja}",
            f"-DCMAKE_TOOLCHAIN_FILE={_SOURCES / 'cmake' / 'zig.cmake'}", f"-DEDGEWISE_TRIPLE={triple}", f"-DEDGEWISE_ZIG={work}",
        ],
        triple,
    )  # fmt: skip
    _call([cmake, "--build", str(work), "--target", *targets], triple)
    for name in (PROGRAM, "libedgewise.a"):
        if (work / name).is_file():
            shutil.move(work / name, draft / name)
    shutil.rmtree(work)


def _script(path: Path, command: list[str]) -> None:
    path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n', encoding="utf-8")
    path.chmod(0o755)


def _program(name: str) -> str:
    """Of this Python's environment first: a checkout's tools are those that it was tested with."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    if not found:
        raise DeviceError(
            "cannot build the agent", where=name, found="no such program", expected="CMake and Ninja",
            fix="Install edgewise[devices], which brings both",
        )  # fmt: skip
    return found


def _call(command: list[str], triple: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = " | ".join((done.stdout + done.stderr).strip().splitlines()[-_TAIL_LINES:])
        raise DeviceError(
            "cannot build the agent", where=triple, found=tail, expected="a build that ends well",
            fix="Report it with the whole output of " + shlex.join(command[:3]),
        )  # fmt: skip
