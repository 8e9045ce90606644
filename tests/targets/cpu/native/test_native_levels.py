"""Whole networks on every level of instructions, built for every x86-64 device, beside ONNX Runtime."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.exporter import export
from edgewise.quantize import quantize
from edgewise.runtime.data import random_data
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.tensors import TensorSpec
from edgewise.targets import find_device
from edgewise.targets.cpu import TARGET
from edgewise.targets.cpu.native.build import isa_of
from edgewise.targets.cpu.native.compile import compile_model
from edgewise.targets.cpu.native.engine_file import encode
from edgewise.targets.nodes import tensor_spec

pytestmark = pytest.mark.usefixtures("libedgewise")
ROOT = Path(__file__).resolve().parents[4]
LEVELS = ("generic", "avx2", "avx512", "avx512vnni", "avx512bf16")
DEVICES = {"generic": "generic", "x86-64-v3": "avx2", "x86-64-v4-vnni": "avx512vnni"}
NETWORKS = ("digits_cnn", "digits_vit", "residual_net")
# Of each level: what multiplies 8 bits there. With 7 bits of weight, no pair of products exceeds 16 bits.
MULTIPLIES = {
    "generic": {"s8_generic"},
    "avx2": {"s8_avx2", "s8_wide_avx2"},
    "avx512": {"s8_avx2", "s8_wide_avx2"},
    "avx512vnni": {"s8_avx512vnni"},
    "avx512bf16": {"s8_avx512vnni"},
}


def residual_net(g: Any) -> ir.Model:
    """Like ResNet-20, smaller: two blocks, the second with a stride and a shortcut of its own; weights of full range."""

    def conv(x: str, name: str, inputs: int, outputs: int, kernel: int, stride: int) -> str:
        weights = [g.weights(f"{name}w", outputs, inputs, kernel, kernel), g.weights(f"{name}b", outputs)]
        made: str = g.add("Conv", [x, *weights], name, pads=[kernel // 2] * 4, strides=[stride] * 2)
        return made

    x = g.add("Relu", [conv("x", "stem", 3, 16, 3, 1)], "r0")
    y = g.add("Relu", [conv(x, "a1", 16, 16, 3, 1)], "r1")
    x = g.add("Relu", [g.add("Add", [conv(y, "a2", 16, 16, 3, 1), x], "s1")], "r2")
    y = g.add("Relu", [conv(x, "b1", 16, 32, 3, 2)], "r3")
    x = g.add("Relu", [g.add("Add", [conv(y, "b2", 32, 32, 3, 1), conv(x, "b3", 16, 32, 1, 2)], "s2")], "r4")
    g.add("Flatten", [g.add("GlobalAveragePool", [x], "p")], "f")
    g.add("Gemm", ["f", g.weights("head", 10, 32), g.weights("hb", 10)], "y", transB=1)
    return g.model({"x": [2, 3, 12, 12]}, {"y": [2, 10]})


def network(name: str, graph_maker: Any) -> ir.Model:
    if name == "residual_net":
        return residual_net(graph_maker(5))
    short = name.removeprefix("digits_")
    arch = {"cnn": "DigitsCNN", "vit": "DigitsViT"}[short]
    folder = ROOT / "examples" / "digits"
    specs = [TensorSpec.parse("image=f32[2,1,8,8]")]
    return export(folder / f"{short}.pth", arch=f"{folder}/model.py:{arch}", inputs=specs, verify=False).model


def models(graph_maker: Any) -> dict[str, tuple[ir.Model, str]]:
    """By ``NETWORK.PRECISION.DEVICE``: the graph, and the device's level."""
    found = {}
    for name in NETWORKS:
        model = network(name, graph_maker)
        data = random_data([tensor_spec(value) for value in model.graph.inputs], 4, seed=0)
        for device, level in DEVICES.items():
            spec = TARGET.quantization("int8", find_device(device, "cpu"))
            found[f"{name}.int8.{device}"] = (
                quantize(model, spec, data, method="minmax", allow_random=True).model,
                level,
            )
        found[f"{name}.f32.generic"] = model, "generic"
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, dict[str, list[np.ndarray]]]]:
    """Engine files and inputs in a folder, and what ONNX Runtime makes of them; built once."""
    done: list[tuple[Path, dict[str, list[np.ndarray]]]] = []

    def build(graph_maker: Any) -> tuple[Path, dict[str, list[np.ndarray]]]:
        if done:
            return done[0]
        folder, wanted = tmp_path_factory.mktemp("levels"), {}
        for name, (model, _) in models(graph_maker).items():
            specs = [tensor_spec(value) for value in model.graph.inputs]
            inputs = next(iter(random_data(specs, 1, seed=3))).inputs
            plan = compile_model(model, isa_of(find_device(name.split(".")[2], "cpu"))).plan
            (folder / f"{name}.engine").write_bytes(encode(plan))
            np.savez(folder / f"{name}.npz", **{f"x{i}": inputs[one.name] for i, one in enumerate(plan.inputs)})
            wanted[name] = list(OnnxRunner(model, threads=1, optimize=False).run(inputs).values())
        done.append((folder, wanted))
        return done[0]

    return build


def run_at(level: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-P", str(Path(__file__).with_name("level_run.py")), str(folder)]
    child = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"EDGEWISE_ISA": level}
    )
    assert child.returncode == 0, child.stderr
    told: dict[str, Any] = json.loads(child.stdout)
    return told


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_every_level_gives_what_onnx_runtime_gives(level: str, built: Any, graph_maker: Any, worst_db: Any) -> None:
    folder, wanted = built(graph_maker)
    for file in folder.glob("*.made.npz"):
        file.unlink()
    told = run_at(level, folder)
    if told["isas"].split()[-1] != level:
        pytest.skip(f"this processor has {told['isas']}")
    for name, references in wanted.items():
        network_name, precision, device = name.split(".")
        if LEVELS.index(DEVICES[device]) > LEVELS.index(level):
            assert f"built for {DEVICES[device]}, this processor has {level}" in told["kernels"][name]
            continue
        made = np.load(folder / f"{name}.made.npz")
        found = [made[f"y{i}"] for i in range(len(references))]
        # Of a network without float parts every rounding is ONNX's own; softmax and LayerNorm tip a few.
        least = 100 if precision == "f32" else 25 if network_name == "digits_vit" else 90
        assert worst_db(references, found) > least, name
        kernels = set(told["kernels"][name].split())
        if precision == "int8":
            assert kernels & MULTIPLIES[level] and not kernels & (set().union(*MULTIPLIES.values()) - MULTIPLIES[level])
        if device != "x86-64-v4-vnni" and level == "avx2" and precision == "int8":
            assert "s8_avx2" in kernels
