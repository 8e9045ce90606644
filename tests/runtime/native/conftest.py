"""libedgewise under test: the installed extension, or the file that EDGEWISE_NATIVE names."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgewise.targets.cpu.native.engine_file import encode
from edgewise.targets.cpu.native.plan import Plan

RunPlan = Callable[..., list[np.ndarray]]
ISAS = ("generic", "avx2", "avx512", "avx512vnni", "avx512bf16")
_NAME = "edgewise.runtime._native"


def load_native() -> ModuleType:
    """The module, also where ``import edgewise.runtime._native`` finds it."""
    file = os.environ.get("EDGEWISE_NATIVE")
    if not file:
        return importlib.import_module(_NAME)
    if getattr(sys.modules.get(_NAME), "__file__", None) != file:
        spec = importlib.util.spec_from_file_location(_NAME, file)
        assert spec and spec.loader
        sys.modules[_NAME] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[_NAME])
    return sys.modules[_NAME]


@pytest.fixture(scope="session")
def native() -> ModuleType:
    """The extension module; skips where it was installed without a C++ compiler."""
    if not os.environ.get("EDGEWISE_NATIVE") and importlib.util.find_spec(_NAME) is None:
        if "CI" in os.environ:
            pytest.fail("CI builds the extension")
        pytest.skip("edgewise was installed without libedgewise")
    return load_native()


class Server:
    """A process that runs engine files with EDGEWISE_ISA set, which libedgewise reads once."""

    def __init__(self, isa: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("serve.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"EDGEWISE_ISA": isa},
        )
        self.isas: str = self.ask("isas")

    def ask(self, *message: Any) -> Any:
        assert self._process.stdin and self._process.stdout
        pickle.dump(message, self._process.stdin)
        self._process.stdin.flush()
        try:
            answer = pickle.load(self._process.stdout)  # noqa: S301 - our own process
        except EOFError:
            status = self._process.wait()
            raise AssertionError(f"the process that ran the engine crashed: exit status {status}") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class Servers:
    """One per instruction set, started at the first use."""

    def __init__(self) -> None:
        self._running: dict[str, Server] = {}

    def of(self, isa: str) -> Server:
        if isa not in self._running:
            self._running[isa] = Server(isa)
        return self._running[isa]

    def end(self, isa: str) -> None:
        self._running.pop(isa).close()

    def close(self) -> None:
        for isa in list(self._running):
            self.end(isa)


@pytest.fixture(scope="session")
def servers(native: ModuleType) -> Iterator[Servers]:
    running = Servers()
    yield running
    running.close()


@pytest.fixture
def engine_file(tmp_path: Path) -> Callable[[Plan], Path]:
    """Write a plan's engine file."""

    def write(plan: Plan) -> Path:
        file = tmp_path / "plan.engine"
        # A new file each time: one that is mapped must not change.
        file.unlink(missing_ok=True)
        file.write_bytes(encode(plan))
        return file

    return write


@pytest.fixture(scope="session")
def run_plan(native: ModuleType, servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> RunPlan:
    """``run_plan(plan, arrays, threads=1, isa=None) -> arrays`` in the order of the plan's inputs and outputs.

    With ``isa`` (one of ``ISAS``) in a process of its own, where libedgewise uses at most that instruction set; the test skips
    where this processor lacks it. Failures are ``native.NativeError`` either way, a crash of that process an AssertionError.
    """
    file = tmp_path_factory.mktemp("plans") / "plan.engine"

    def run(plan: Plan, arrays: Sequence[np.ndarray], threads: int = 1, isa: str | None = None) -> list[np.ndarray]:
        file.unlink(missing_ok=True)
        file.write_bytes(encode(plan))
        if isa is None:
            return native.Context(native.Engine(str(file)), threads=threads).run(list(arrays))
        server = servers.of(isa)
        if isa not in server.isas.split():
            pytest.skip(f"this processor has no {isa}")
        try:
            answer = server.ask("run", str(file), list(arrays), threads)
        except AssertionError:
            servers.end(isa)
            raise
        if isinstance(answer, tuple):
            raise native.NativeError(*answer)
        return answer

    return run
