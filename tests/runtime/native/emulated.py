"""Engine files on other processors: the agent built for each, in qemu. What it says is in bench/serve.h."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.runtime.devices.agents import agent_for
from edgewise.runtime.devices.cross import LIBRARY, SOURCES, WASM, built, zig

_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Processor:
    """For which triple the agent is built, and what runs it as which processor."""

    triple: str
    emulator: str
    cpu: str


# A processor of qemu's (WebAssembly's is Node.js) whose best level it is: none of them is lowered by EDGEWISE_ISA, so what is found out is
# tested too. A level that several architectures have has theirs behind it.
PROCESSORS = {
    "neon": Processor("aarch64-linux-musl", "qemu-aarch64-static", "cortex-a53"),
    "neon_dotprod": Processor("aarch64-linux-musl", "qemu-aarch64-static", "cortex-a76"),
    "neon_i8mm": Processor("aarch64-linux-musl", "qemu-aarch64-static", "max"),
    "vec4": Processor("arm-linux-musleabihf", "qemu-arm-static", "cortex-a7"),
    "vec4_on_wasm32": Processor(WASM, "node", ""),
    "vec4_on_riscv64": Processor("riscv64-linux-musl", "qemu-riscv64-static", "rv64,v=true,vlen=128,vext_spec=v1.0"),
}
# One that has none of these levels.
SCALAR_RISCV = Processor("riscv64-linux-musl", "qemu-riscv64-static", "rv64")


def level(isa: str) -> str:
    """As libedgewise names it."""
    return isa.partition("_on_")[0]


# By ew_dtype.
_DTYPES = ("float32", "float16", "uint16", "uint8", "int8", "int32", "int64", "bool")


@functools.cache
def wasm_agent(triple: str) -> Path:
    """The agent's part that serves, of which the rest is nothing for WebAssembly."""
    folder = Path(tempfile.mkdtemp(prefix="edgewise-wasm-"))
    atexit.register(shutil.rmtree, folder)
    (folder / "main.cpp").write_text('#include "serve.h"\nint main() { return bench::serve(); }\n')
    bench, program = SOURCES / "bench", folder / "serve.wasm"
    flags = ["-target", triple, "-std=c++17", "-Os", "-fno-exceptions", "-fno-rtti", "-mexec-model=command"]
    places = [f"-I{SOURCES / 'include'}", f"-I{bench}", "-o", str(program)]
    sources = [folder / "main.cpp", bench / "serve.cpp", bench / "reference.cpp", built(triple) / LIBRARY]
    subprocess.run([zig(), "c++", *flags, *places, *sources], check=True)
    return program


def agent_of_gcc(folder: Path) -> Path | None:
    """That of aarch64 as a board's own compiler builds it: Debian's GCC. None where there is no such compiler, but for CI."""
    compiler = shutil.which("aarch64-linux-gnu-g++")
    if not compiler:
        if "CI" in os.environ:
            pytest.fail("CI has aarch64-linux-gnu-g++")
        return None
    platform = ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", f"-DCMAKE_CXX_COMPILER={compiler}"]
    kind = ["-DEDGEWISE_STATIC=ON", "-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_MAKE_PROGRAM={beside('ninja')}"]
    configure = [beside("cmake"), "-G", "Ninja", "-S", str(SOURCES), "-B", str(folder), *platform, *kind]
    subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(
        [beside("cmake"), "--build", str(folder), "--target", "edgewise_bench"], check=True, stdout=subprocess.DEVNULL
    )
    return folder / "edgewise-bench"


def beside(program: str) -> str:
    """A program of this Python's environment, or of the system."""
    place = Path(sys.executable).with_name(program)
    return str(place) if place.is_file() else program


class Emulated:
    """A process that answers until it is closed."""

    def __init__(self, processor: Processor, agent: Path | None = None) -> None:
        emulator = shutil.which(processor.emulator)
        if not emulator:
            if "CI" in os.environ:
                pytest.fail(f"CI has {processor.emulator}")
            pytest.skip(f"needs {processor.emulator}")
        machine = processor.triple.split("-")[0].upper()
        make = wasm_agent if processor.triple == WASM else agent_for
        program = agent or os.environ.get(f"EDGEWISE_AGENT_{machine}") or make(processor.triple)
        env = {name: value for name, value in os.environ.items() if name != "EDGEWISE_ISA"}
        self._process = subprocess.Popen(
            [emulator, "--no-warnings", str(_HERE / "serve.mjs"), str(program)]
            if processor.triple == WASM
            else [emulator, "-cpu", processor.cpu, str(program), "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
        )
        self.kernels = ""  # that the last run used
        self.isas = self._text()

    def ask(self, verb: str, file: str, arrays: Sequence[np.ndarray], threads: int) -> Any:
        """``run``: the outputs, or (status, message) where libedgewise refuses."""
        assert verb == "run" and self._process.stdin
        self._process.stdin.write(_request(file, arrays, threads))
        self._process.stdin.flush()
        status = self._number("I")
        text = self._text()
        if status:
            return status, text
        self.kernels = text
        return [self._array() for _ in range(self._number("I"))]

    def close(self) -> None:
        """End it."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _read(self, count: int) -> bytes:
        assert self._process.stdout
        data = self._process.stdout.read(count)
        if len(data) < count:
            status = self._process.wait()
            raise AssertionError(f"the process that ran the engine crashed: exit status {status}")
        return data

    def _number(self, kind: str) -> int:
        value: int = struct.unpack(f"<{kind}", self._read(struct.calcsize(f"<{kind}")))[0]
        return value

    def _text(self) -> str:
        return self._read(self._number("I")).decode(errors="replace")  # names in messages may be any bytes

    def _array(self) -> np.ndarray:
        dtype = np.dtype(_DTYPES[self._number("I")])
        dims = [self._number("q") for _ in range(self._number("I"))]
        return np.frombuffer(self._read(self._number("Q")), dtype).reshape(dims)


def _request(file: str, arrays: Sequence[np.ndarray], threads: int) -> bytes:
    path = str(Path(file)).encode()
    parts = [struct.pack("<I", len(path)), path, struct.pack("<II", threads, len(arrays))]
    for array in arrays:
        data = np.ascontiguousarray(array).tobytes()
        head = struct.pack(f"<II{array.ndim}qQ", _DTYPES.index(array.dtype.name), array.ndim, *array.shape, len(data))
        parts += [head, data]
    return b"".join(parts)
