"""libedgewise under test: the installed extension, or the file that EDGEWISE_NATIVE names."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgewise.targets.cpu.native.engine_file import encode
from edgewise.targets.cpu.native.plan import DType, Isa, Layout, Op, Plan, Tensor, dim

_spec = importlib.util.spec_from_file_location("native_emulated", Path(__file__).with_name("emulated.py"))
assert _spec and _spec.loader
emulated = importlib.util.module_from_spec(_spec)
sys.modules.setdefault(_spec.name, emulated)  # where dataclasses look
_spec.loader.exec_module(emulated)

RunPlan = Callable[..., list[np.ndarray]]
_NAME = "edgewise.runtime._native"
_MAX_KEPT_BYTES = 1 << 16


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on an emulated processor's level are slow ones, which need a compiler for it."""
    for item in items:
        isa = getattr(item, "callspec", None) and item.callspec.params.get("isa")
        if isa in emulated.PROCESSORS:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.cross)


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
        self._running: dict[str, Any] = {}

    def of(self, isa: str) -> Any:
        if isa not in self._running:
            self._running[isa] = (
                emulated.Emulated(emulated.PROCESSORS[isa]) if isa in emulated.PROCESSORS else Server(isa)
            )
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

    With ``isa`` (a level's name) in a process of its own, where libedgewise uses at most that instruction set; the test skips
    where this processor lacks it. Failures are ``native.NativeError`` either way, a crash of that process an AssertionError.
    """
    file = tmp_path_factory.mktemp("plans") / "plan.engine"

    def run(plan: Plan, arrays: Sequence[np.ndarray], threads: int = 1, isa: str | None = None) -> list[np.ndarray]:
        file.unlink(missing_ok=True)
        file.write_bytes(encode(plan))
        if isa is None:
            made = native.Context(native.Engine(str(file)), threads=threads).run(list(arrays))
            _keep(plan, file)
            return made
        server = servers.of(isa)
        if emulated.level(isa) not in server.isas.split():
            pytest.skip(f"this processor has no {isa}")
        try:
            answer = server.ask("run", str(file), list(arrays), threads)
        except AssertionError:
            servers.end(isa)
            raise
        if isinstance(answer, tuple):
            raise native.NativeError(*answer)
        _keep(plan, file)
        return answer

    return run


def _keep(plan: Plan, file: Path) -> None:
    """Copy a plan's engine file to the folder EDGEWISE_KEEP_PLANS, one of each sort: what damaged files are made of."""
    folder = os.environ.get("EDGEWISE_KEEP_PLANS")
    if not folder or file.stat().st_size > _MAX_KEPT_BYTES:
        return
    sort = [
        (op.op, op.attributes.get("function"), sorted(op.attributes), [t and (t.dtype, t.layout, len(t.dims)) for t in [*op.inputs, *op.outputs]])
        for op in plan.ops
    ]  # fmt: skip
    digest = hashlib.sha256(repr((plan.isa, sort)).encode()).hexdigest()[:8]
    kept = Path(folder) / f"{'-'.join(dict.fromkeys(op.op for op in plan.ops))}-{plan.isa.name.lower()}-{digest}.engine"
    if not kept.exists():
        shutil.copy(file, kept)


RunOp = Callable[..., list[np.ndarray]]


@pytest.fixture(scope="session")
def run_op(native: ModuleType, run_plan: RunPlan) -> RunOp:
    """``run_op(op, inputs, outputs, attributes, isa=None, threads=1, in_place=False) -> arrays`` runs one operator.

    An input is an array, None, ``("const", array)``, ``("c4", array)`` or ``("const-c4", array)`` with array [N, C, ...].
    An output is ``(dtype, dims)`` or ``(dtype, dims, "c4")``; C4 is packed and unpacked here. In place: the first
    output lies where the first input does.
    """

    def run(
        op: str,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        attributes: dict[str, Any] | None = None,
        *,
        isa: str | None = None,
        threads: int = 1,
        in_place: bool = False,
    ) -> list[np.ndarray]:
        arrays: list[np.ndarray] = []
        ports: list[Tensor] = []
        operands = [_operand(one, f"x{index}", arrays, ports) for index, one in enumerate(inputs)]
        results = [_result(one, f"y{index}") for index, one in enumerate(outputs)]
        steps = [Op(op, op, operands, [tensor for tensor, _ in results], attributes or {})]
        first = operands[0] if operands else None
        if in_place and first is not None:
            # An input of the plan is never written: the operator works on a copy.
            inner = Tensor("inner", first.dtype, first.dims, first.layout)
            target, size = results[0][0], (inner.size_bytes.constant or 0) // first.dtype.size_bytes
            copied = [replaced(one, first.dtype, [size], Layout.PLAIN) for one in (first, inner)]
            target.storage = inner.storage
            port = Tensor("y", target.dtype, target.dims, target.layout)
            total = (target.size_bytes.constant or 0) // target.dtype.size_bytes
            back = [replaced(one, target.dtype, [total], Layout.PLAIN) for one in (target, port)]
            steps[0].inputs = [inner, *operands[1:]]
            steps = [Op("copy", "in", copied[:1], copied[1:]), *steps, Op("copy", "out", back[:1], back[1:])]
            results[0] = (port, results[0][1])
        seen = [_plain(tensor) for tensor, _ in results]
        plan = Plan(
            Isa[emulated.level(isa or native.isas().split()[-1]).upper()],
            [_plain(tensor) for tensor in ports],
            seen,
            steps,
        )
        got = run_plan(plan, arrays, threads=threads, isa=isa)
        return [
            from_c4(array, dims) if tensor.layout is Layout.C4 else array.reshape(dims)
            for array, (tensor, dims) in zip(got, results, strict=True)
        ]

    return run


def replaced(tensor: Tensor, dtype: DType, dims: Sequence[int], layout: Layout) -> Tensor:
    """The same memory, seen as another shape."""
    dims_of = tuple(dim(size) for size in dims)
    return Tensor(tensor.name, dtype, dims_of, layout, storage=tensor.storage, offset_bytes=tensor.offset_bytes)


def to_c4(array: np.ndarray) -> np.ndarray:
    """[N, C, ...] to [N, ceil(C/4), ..., 4]; what lies beyond C is 77."""
    batch, channels, *spatial = array.shape
    padded = np.full((batch, -(-channels // 4) * 4, *spatial), 77, array.dtype)
    padded[:, :channels] = array
    split = padded.reshape(batch, padded.shape[1] // 4, 4, *spatial)
    return np.ascontiguousarray(np.moveaxis(split, 2, -1))


def from_c4(array: np.ndarray, dims: Sequence[int]) -> np.ndarray:
    """The array [N, C, ...] of these dims in C4 bytes."""
    batch, channels, *spatial = dims
    split = array.reshape(batch, -(-channels // 4), *spatial, 4)
    return np.moveaxis(split, -1, 2).reshape(batch, -(-channels // 4) * 4, *spatial)[:, :channels]


def _dtype(array: np.ndarray) -> DType:
    return _DTYPES[array.dtype.name]


_DTYPES = {
    "float32": DType.F32,
    "float16": DType.F16,
    "bfloat16": DType.BF16,
    "uint8": DType.U8,
    "int8": DType.S8,
    "int32": DType.S32,
    "int64": DType.S64,
    "bool": DType.BOOL,
    "float64": DType.F64,
    "int16": DType.S16,
    "uint16": DType.U16,
}


def _operand(one: Any, name: str, arrays: list[np.ndarray], ports: list[Tensor]) -> Tensor | None:
    if one is None:
        return None
    kind, array = one if isinstance(one, tuple) else ("", one)
    layout = Layout.C4 if kind.endswith("c4") else Layout.PLAIN
    dims = tuple(dim(size) for size in array.shape)
    stored = to_c4(array) if layout is Layout.C4 else array
    if kind.startswith("const"):
        return Tensor(name, _dtype(array), dims, layout, data=stored)
    tensor = Tensor(name, _dtype(array), dims, layout)
    arrays.append(stored.view(np.uint16) if stored.dtype.name == "bfloat16" else stored)
    ports.append(tensor)
    return tensor


def _result(one: Any, name: str) -> tuple[Tensor, Sequence[int]]:
    dtype, dims, *layout = one
    return Tensor(name, _DTYPES[dtype], tuple(dim(size) for size in dims), Layout.C4 if layout else Layout.PLAIN), dims


def _plain(tensor: Tensor) -> Tensor:
    """As a port: inputs and outputs of a plan are never packed."""
    if tensor.layout is Layout.PLAIN:
        return tensor
    batch, channels, *spatial = (one.constant or 0 for one in tensor.dims)
    return replaced(tensor, tensor.dtype, [batch, -(-channels // 4), *spatial, 4], Layout.PLAIN)
