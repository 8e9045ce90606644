"""libedgewise and its agent ``edgewise-bench``, built for another processor with Zig's C++ compiler and kept in a cache."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgewise.runtime.devices.errors import DeviceError
from edgewise.runtime.extras import needs
from edgewise.runtime.progress import Progress, silent
from edgewise.runtime.storage import whole_folder

AGENT, LIBRARY = "edgewise-bench", "libedgewise.a"
SOURCES = Path(__file__).resolve().parent.parent / "native"
_TARGETS = ("edgewise_bench", "edgewise_static", "edgewise_image")
WASM = "wasm32-wasi"
_BUILT_FROM = ("CMakeLists.txt", "cmake", "include", "src", "bench", "image")
# What the library's C++ needs beneath it: with these inside, a C compiler links it.
_BENEATH = ("libc++.a", "libc++abi.a", "libunwind.a")
_IMAGE = "libedgewise_image.a"
_TAIL_LINES = 3


def built(triple: str, progress: Progress = silent) -> Path:
    """A folder of the cache that holds the static library for a triple and, where it has one, the agent; the first time they are built.

    Raises:
        DeviceError: the build fails.
        MissingExtraError: no Zig, CMake or Ninja.
    """
    compiler = zig()
    folder = _cache() / _key(triple)
    if not folder.is_dir():
        progress(f"build libedgewise for {triple}", 0, None)
        with _alone(folder):
            if not folder.is_dir():  # another process may have built it meanwhile
                with whole_folder(folder) as draft:
                    _build(triple, compiler, draft)
    return folder


def _has_agent(triple: str) -> bool:
    """Whether an agent is built: it is static, which glibc cannot be, and WebAssembly has neither threads nor clocks of a processor."""
    return "-musl" in triple


def zig() -> Path:
    """Zig's program, out of the package that brings it.

    Raises:
        MissingExtraError: it is not installed.
    """
    with needs("devices"):
        import ziglang
    return Path(ziglang.__file__).with_name("zig")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time builds for a triple; the system lets go of the lock when a process dies."""
    import fcntl  # Windows has none: ready agents serve there, but none is built

    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgewise" / "native"


def _key(triple: str) -> str:
    """Of the sources and the compiler: whatever changes makes another."""
    digest = hashlib.sha256(repr((triple, _TARGETS, importlib.metadata.version("ziglang"))).encode())
    for root in (SOURCES / name for name in _BUILT_FROM):
        for file in sorted(root.rglob("*")) if root.is_dir() else [root]:
            if file.is_file():
                digest.update(file.relative_to(SOURCES).as_posix().encode() + b"\0" + file.read_bytes())
    return f"{triple}-{digest.hexdigest()[:16]}"


def _build(triple: str, compiler: Path, draft: Path) -> None:
    work = draft / "build"
    work.mkdir()
    for tool, words in {
        "c++": ["c++", "-target", triple],
        "cc": ["cc", "-target", triple],
        "ar": ["ar"],
        "ranlib": ["ranlib"],
    }.items():
        _script(work / tool, [str(compiler), *words])
    cmake, ninja = _program("cmake"), _program("ninja")
    _call(
        [
            cmake, "-G", "Ninja", "-S", str(SOURCES), "-B", str(work), f"-DCMAKE_MAKE_PROGRAM={ninja}",
            f"-DCMAKE_TOOLCHAIN_FILE={SOURCES / 'cmake' / 'zig.cmake'}", f"-DEDGEWISE_TRIPLE={triple}", f"-DEDGEWISE_ZIG={work}",
            "-DCMAKE_CXX_COMPILER_LAUNCHER=",  # a cache of objects would find none again: the compiler is a script in a new folder
        ],
        triple,
    )  # fmt: skip
    agent = _has_agent(triple)
    _call([cmake, "--build", str(work), "--target", *_TARGETS[not agent :]], triple)
    _merge(work, triple)
    for name in (AGENT, LIBRARY)[not agent :]:
        shutil.move(work / name, draft / name)
    shutil.rmtree(work)


def _merge(work: Path, triple: str) -> None:
    """Put the preprocessing, the C++ library and what that needs into the archive."""
    (work / "empty.cpp").write_text("int main() {}\n", encoding="utf-8")
    # In that folder as all the rest: to Zig a libc beneath the current folder is another one, which it builds anew.
    told = _call([str(work / "c++"), "-Os", "-v", "empty.cpp", "-o", "empty"], triple, cwd=work)
    beneath = [Path(word) for word in told.split() if Path(word).name in _BENEATH]
    for file in beneath:  # beside each other, since ar's script has no way to quote a path
        shutil.copy(file, work / file.name)
    (work / LIBRARY).rename(work / "alone.a")
    script = [
        f"create {LIBRARY}",
        *(f"addlib {name}" for name in ("alone.a", _IMAGE, *sorted({file.name for file in beneath}))),
        "save",
        "end",
    ]
    _call([str(work / "ar"), "-M"], triple, cwd=work, said="\n".join(script) + "\n")


def _script(path: Path, command: list[str]) -> None:
    path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n', encoding="utf-8")
    path.chmod(0o755)


def _program(name: str) -> str:
    """Of this Python's environment first: a checkout's tools are those that it was tested with."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    if not found:
        raise DeviceError(
            "cannot build libedgewise", where=name, found="no such program", expected="CMake and Ninja",
            fix="Install edgewise[devices], which brings both",
        )  # fmt: skip
    return found


def _call(command: list[str], triple: str, *, cwd: Path | None = None, said: str = "") -> str:
    """What the program prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, input=said)
    if done.returncode != 0:
        tail = " | ".join((done.stdout + done.stderr).strip().splitlines()[-_TAIL_LINES:])
        raise DeviceError(
            "cannot build libedgewise", where=triple, found=tail, expected="a build that ends well",
            fix="Report it with the whole output of " + shlex.join(command[:3]),
        )  # fmt: skip
    return done.stdout + done.stderr
