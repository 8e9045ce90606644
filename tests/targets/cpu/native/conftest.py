"""Networks through the compiler and libedgewise, beside ONNX Runtime on the same graph."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.runtime.data import random_data
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets.cpu.native.compile import compile_model
from edgewise.targets.cpu.native.engine_file import encode
from edgewise.targets.cpu.native.plan import Isa
from edgewise.targets.nodes import tensor_spec

_NAME = "edgewise.runtime._native"
Arrays = dict[str, np.ndarray]
RunNative = Callable[..., list[np.ndarray]]


@pytest.fixture(scope="session")
def libedgewise() -> ModuleType:
    """The extension, or the file that EDGEWISE_NATIVE names; skips where it was installed without a C++ compiler."""
    file = os.environ.get("EDGEWISE_NATIVE")
    if file and getattr(sys.modules.get(_NAME), "__file__", None) != file:
        spec = importlib.util.spec_from_file_location(_NAME, file)
        assert spec and spec.loader
        sys.modules[_NAME] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[_NAME])
    elif not file and importlib.util.find_spec(_NAME) is None:
        if "CI" in os.environ:
            pytest.fail("CI builds the extension")
        pytest.skip("edgewise was installed without libedgewise")
    return importlib.import_module(_NAME)


@pytest.fixture
def run_native(libedgewise: ModuleType, tmp_path: Path) -> RunNative:
    """``run_native(model, inputs, threads=1, isa=Isa.GENERIC)``: a network's outputs by libedgewise, compiled for a level."""

    def run(model: ir.Model, inputs: Arrays, threads: int = 1, isa: Isa = Isa.GENERIC) -> list[np.ndarray]:
        plan = compile_model(model, isa).plan
        path = tmp_path / "n.engine"
        path.write_bytes(
            encode(replace(plan, isa=Isa.GENERIC))
        )  # each operator takes the best kernel that this processor has
        context = libedgewise.Context(libedgewise.Engine(str(path)), threads=threads)
        made: list[np.ndarray] = context.run([inputs[tensor.name] for tensor in plan.inputs])
        assert [tensor.name for tensor in plan.outputs] == [value.name for value in model.graph.outputs]
        return made

    return run


@pytest.fixture
def sample() -> Callable[..., Arrays]:
    """Random inputs of a model."""

    def make(model: ir.Model, dynamic: int = 3) -> Arrays:
        specs = [tensor_spec(value) for value in model.graph.inputs]
        return dict(next(iter(random_data(specs, 1, seed=3, dynamic=dynamic))).inputs)

    return make


@pytest.fixture
def run_onnx() -> Callable[[ir.Model, Arrays], list[np.ndarray]]:
    """A network's outputs by ONNX Runtime, node by node as ONNX defines them."""

    def run(model: ir.Model, inputs: Arrays) -> list[np.ndarray]:
        made = OnnxRunner(model, threads=1, optimize=False).run(inputs)
        return [made[value.name or ""] for value in model.graph.outputs]

    return run


def db(reference: np.ndarray, found: np.ndarray) -> float:
    """Signal to noise."""
    wanted = np.asarray(reference, np.float64)
    noise = np.sum((wanted - found) ** 2)
    return float(10 * np.log10(np.sum(wanted**2) / noise)) if noise else float("inf")


@pytest.fixture
def worst_db() -> Callable[[list[np.ndarray], list[np.ndarray]], float]:
    """The least signal to noise over outputs; shapes and dtypes must be equal."""

    def measure(references: list[np.ndarray], found: list[Any]) -> float:
        assert [(one.shape, one.dtype) for one in references] == [(one.shape, one.dtype) for one in found]
        return min(db(a, b) for a, b in zip(references, found, strict=True))

    return measure
