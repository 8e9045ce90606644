"""What every test may use, and the guard against a double import."""

from __future__ import annotations

import copy
import fcntl
import functools
import gc
import os
import pickle
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import numpy as np
import pytest

if TYPE_CHECKING:
    import onnx_ir as ir

# No test asserts a wall-clock time: a busy machine is no failure. Fixtures shared by a test's examples are read only.
# CI draws the same examples every time, so that a commit fails there for what it changed; by hand they are new each time.
_UNCHECKED = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture]
hypothesis.settings.register_profile(
    "edgewise", deadline=None, suppress_health_check=_UNCHECKED, derandomize="CI" in os.environ
)
hypothesis.settings.load_profile("edgewise")

# Imports and collection make a million objects that stay. They are set apart, for each full collection of garbage would go through
# them, and garbage waits until it is much: coremltools asks for a full collection at every conversion, a sixth of the time of its node tests.
gc.disable()
_collect = gc.collect


def _collect_unless_of_coremltools(generation: int = 2) -> int:
    asks = str(sys._getframe(1).f_globals.get("__name__"))
    return 0 if asks.startswith("coremltools.") else _collect(generation)


gc.collect = _collect_unless_of_coremltools


_DEAR = ("slow", "conformance", "e2e", "shared")


@pytest.hookimpl(trylast=True)  # what -m leaves
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The dear tests first in each part that pytest-xdist hands to a process: the short ones, last, keep all cores at work to the end.

    Files of few dear tests come before those of many, since they train, build or compile something whole, and the processes get
    them in turn.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    files: dict[Path, list[pytest.Item]] = {}
    short = []
    for item in items:
        if any(item.get_closest_marker(mark) for mark in _DEAR):
            files.setdefault(item.path, []).append(item)
        else:
            short.append(item)
    dear = sorted(files.values(), key=len)
    ordered: list[pytest.Item] = []
    for part in range(processes):
        ordered += [item for file in dear[part::processes] for item in file]
        room = max(len(items) * (part + 1) // processes - len(ordered), 0)
        ordered += short[:room]
        del short[:room]
    items[:] = ordered


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(50_000)  # for 700 new objects, as it is, a collection looks at what mostly stays
    gc.enable()


if sys.version_info < (3, 12):
    # Each isinstance() of a protocol lists the protocol's methods anew, which later Pythons remember: onnx_ir asks for every tensor.
    typing._get_protocol_attrs = functools.cache(typing._get_protocol_attrs)  # type: ignore[attr-defined]

_BARE = ("exporter", "quantize", "targets", "runtime", "toolchain")


_DEADLY = """
import os, pathlib, signal
import numpy as np
marker = pathlib.Path({marker!r})
def samples():
    if not marker.exists():
        marker.write_text("died")
        os.kill(os.getpid(), signal.SIGKILL)
    yield {{"x": np.zeros({shape}, np.float32), "label": 0}}
"""


@pytest.fixture
def deadly(tmp_path: Path) -> Callable[..., Path]:
    """Write ``deadly.py``, whose ``samples`` kill the process that opens them, once: what a worker dies of. Gives the file that then is there."""

    def write(*shape: int) -> Path:
        marker = tmp_path / "marker"
        (tmp_path / "deadly.py").write_text(_DEADLY.format(marker=str(marker), shape=shape))
        return marker

    return write


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Real images and trained weights beside the checkout; the test skips without them."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "models").is_dir():
        pytest.skip("needs ../shared with its real weights and images")
    return folder


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """``once(name, write)``: a file that several tests read; the first test process that wants it writes it."""
    here = tmp_path_factory.getbasetemp()
    folder = (here.parent if "PYTEST_XDIST_WORKER" in os.environ else here) / "once"
    folder.mkdir(exist_ok=True)

    def file(name: str, write: Callable[[Path], None]) -> Path:
        path = folder / name
        with (folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                write(path)
        return path

    return file


@pytest.fixture(scope="session")
def made_once(once: Callable[..., Path]) -> Callable[[str, Callable[[], ir.Model]], ir.Model]:
    """``made_once(name, make)``: a graph that several tests begin with, read anew for each."""
    from edgewise.runtime.onnx_file import read_onnx, write_onnx

    return lambda name, make: read_onnx(once(f"{name}.onnx", lambda path: write_onnx(make(), path)))


@pytest.fixture(scope="session")
def onnx_node_tests(once: Callable[..., Path]) -> list[Any]:
    """ONNX's backend tests of single operators; computing what they expect takes ten seconds."""
    from onnx.backend.test.loader import load_model_tests

    def write(path: Path) -> None:
        with np.errstate(all="ignore"):
            path.write_bytes(pickle.dumps(load_model_tests(kind="node")))

    return pickle.loads(once("node_tests", write).read_bytes())  # type: ignore[no-any-return]  # noqa: S301


@pytest.fixture(scope="session", autouse=True)
def one_table_of_torchs_operators() -> Iterator[None]:
    """Each export of PyTorch makes its table of operators anew, two thirds of a small network's time: here later ones copy the first.

    Before it decomposes a network it looks up all operators that are compositions of others, so that they are loaded: once is enough.
    """
    if "torch" not in sys.modules:
        yield
        return
    import torch._export.utils
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    first = functools.cache(ONNXRegistry.from_torchlib)

    def copied(**options: int) -> ONNXRegistry:
        table = copy.copy(first(**options))
        table.functions = {name: [*found] for name, found in table.functions.items()}  # an export adds its own
        return table

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(copied))
        load_once = functools.cache(torch._export.utils._materialize_cpp_cia_ops)
        patch.setattr(torch._export.utils, "_materialize_cpp_cia_ops", load_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_double_import() -> Iterator[None]:
    """Fail the run when a part was imported by its bare name: it would exist twice, with two of every class.

    A fixture, because a hook's exit status does not reach the process that started pytest-xdist's workers.
    """
    yield
    doubled = [name for name in _BARE if name in sys.modules]
    assert not doubled, f"imported by bare name: {', '.join(doubled)}; import edgewise.NAME instead"
