"""A tiny network, data for it, and the command line called in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewise.cli.outcome import run

CLASSES = 5


@dataclass(frozen=True)
class Done:
    """What a run of the command line left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout; anything else there fails here."""
        made: dict[str, Any] = json.loads(self.out)
        return made


Cli = Callable[..., Done]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    """Run ``edgewise ARGUMENTS`` in this process."""

    def call(*arguments: str | Path) -> Done:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    return call


def tiny_model(seed: int = 0, width: int = 8) -> onnx.ModelProto:
    """x [1,3,8,8] → Conv, Relu, GlobalAveragePool, Flatten, Gemm → y [1,5]."""
    random = np.random.default_rng(seed)
    weights = {
        "conv.weight": random.normal(0, 0.4, (width, 3, 3, 3)),
        "conv.bias": random.normal(0, 0.1, width),
        "head.weight": random.normal(0, 0.6, (CLASSES, width)),
        "head.bias": random.normal(0, 0.1, CLASSES),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["conv_out"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv_out"], ["relu_out"], name="relu"),
        helper.make_node("GlobalAveragePool", ["relu_out"], ["pool_out"], name="pool"),
        helper.make_node("Flatten", ["pool_out"], ["flat_out"], name="flatten"),
        helper.make_node("Gemm", ["flat_out", "head.weight", "head.bias"], ["y"], name="head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, CLASSES])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network as an ONNX file."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    onnx.save(tiny_model(), path)
    return path


@pytest.fixture(scope="session")
def calib(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled samples for it: 24 of them, of which the network gets some right."""
    random = np.random.default_rng(1)
    path = tmp_path_factory.mktemp("data") / "calib.npz"
    np.savez(path, x=random.normal(size=(24, 3, 8, 8)).astype(np.float32), label=random.integers(0, CLASSES, 24))
    return path


@pytest.fixture(scope="session")
def built(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float bundle of it for the CPU. Not to be changed."""
    import edgewise

    path = tmp_path_factory.mktemp("built") / "tiny.edge"
    edgewise.build(tiny, path, target="cpu")
    return path


def listing(folder: Path) -> list[str]:
    """Every path below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
