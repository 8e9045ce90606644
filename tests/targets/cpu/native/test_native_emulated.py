"""Whole networks on every level of aarch64, on ARMv7, RISC-V and WebAssembly, in emulators, beside ONNX Runtime."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.exporter import export
from edgewise.quantize import quantize
from edgewise.runtime.data import random_data
from edgewise.runtime.tensors import TensorSpec
from edgewise.targets import find_device
from edgewise.targets.cpu import TARGET
from edgewise.targets.cpu.native.compile import compile_model
from edgewise.targets.cpu.native.engine_file import encode
from edgewise.targets.cpu.native.plan import Isa
from edgewise.targets.nodes import tensor_spec

pytestmark = [pytest.mark.slow, pytest.mark.cross]
ROOT = Path(__file__).resolve().parents[4]
DEVICE = "raspberrypi5"
MULTIPLIES = {
    "neon": "s8_neon",
    "neon_dotprod": "s8_neon_dotprod",
    "neon_i8mm": "s8_neon_i8mm",
    "vec4": "s8_vec4",
    "vec4_on_riscv64": "s8_vec4",
    "vec4_on_wasm32": "s8_vec4",
}
# Of a quantized network without float parts every rounding is ONNX's own; softmax and LayerNorm tip a few.
LEAST_DB = {"digits_vit": 25}


def module(path: Path) -> ModuleType:
    """A helper or a test file beside this one or in another folder."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, made)  # where dataclasses look
    spec.loader.exec_module(made)
    return made


emulated = module(ROOT / "tests" / "runtime" / "native" / "emulated.py")
levels = module(Path(__file__).with_name("test_native_levels.py"))


def mobile_net(g: Any) -> ir.Model:
    """Depthwise layers with strides 1 and 2, hard swish, a gate by the mean of each channel."""

    def conv(x: str, name: str, shape: list[int], act: str, **attributes: Any) -> str:
        y: str = g.add(
            "Conv", [x, g.weights(f"{name}w", *shape), g.weights(f"{name}b", shape[0])], f"{name}y", **attributes
        )
        made: str = g.add(act, [y], name)
        return made

    x = conv("x", "stem", [16, 3, 3, 3], "HardSwish", pads=[1] * 4, strides=[2] * 2)
    x = conv(x, "dw1", [16, 1, 3, 3], "Relu", pads=[1] * 4, group=16)
    gate = conv(g.add("GlobalAveragePool", [x], "mean"), "gate", [16, 16, 1, 1], "HardSigmoid")
    x = conv(g.add("Mul", [x, gate], "gated"), "pw1", [40, 16, 1, 1], "HardSwish")
    x = conv(x, "dw2", [40, 1, 5, 5], "HardSwish", pads=[2] * 4, strides=[2] * 2, group=40)
    x = conv(x, "pw2", [24, 40, 1, 1], "Relu")
    g.add("Flatten", [g.add("GlobalAveragePool", [x], "p")], "f")
    g.add("Gemm", ["f", g.weights("head", 10, 24), g.weights("hb", 10)], "y", transB=1)
    model: ir.Model = g.model({"x": [1, 3, 30, 30]}, {"y": [1, 10]})
    return model


def shared_network(name: str, shared_dir: Path) -> ir.Model:
    file, arch, shape = {
        "resnet20": ("resnet20_cifar10.th", "cifar/resnet20.py:resnet20", "x=f32[2,3,32,32]"),
        "squeezenet": ("squeezenet10_imagenet.pth", "imagenet/squeezenet.py:squeezenet10", "x=f32[1,3,95,95]"),
    }[name]
    arch = f"{ROOT}/examples/{arch}"
    return export(shared_dir / "models" / file, arch=arch, inputs=[TensorSpec.parse(shape)], verify=False).model


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A process per level, for aarch64's also one that GCC compiled."""
    running = {isa: emulated.Emulated(processor) for isa, processor in emulated.PROCESSORS.items()}
    agent = emulated.agent_of_gcc(tmp_path_factory.mktemp("gcc"))
    for isa in ("neon", "neon_dotprod", "neon_i8mm") if agent else ():
        running[f"{isa} by gcc"] = emulated.Emulated(emulated.PROCESSORS[isa], agent)
    yield running
    for one in running.values():
        one.close()


@pytest.fixture
def compare(machines: dict[str, Any], run_onnx: Any, worst_db: Any, tmp_path: Path) -> Callable[..., None]:
    """A network on each level; in int8 with the kernel of that level."""

    def check(model: ir.Model, least_db: float, *, integer: bool) -> None:
        specs = [tensor_spec(value) for value in model.graph.inputs]
        inputs = next(iter(random_data(specs, 1, seed=3))).inputs
        wanted = run_onnx(model, inputs)
        plan = compile_model(model, Isa.GENERIC).plan
        file = tmp_path / "network.engine"
        file.write_bytes(encode(plan))
        for isa, machine in machines.items():
            made = machine.ask("run", str(file), [inputs[one.name] for one in plan.inputs], 2)
            assert isinstance(made, list), made
            assert worst_db(wanted, made) > least_db, isa
            kernels = set(machine.kernels.split())
            assert kernels & {"f32_neon", "f32_vec4"} or integer
            assert not integer or kernels & set(MULTIPLIES.values()) == {MULTIPLIES[isa.removesuffix(" by gcc")]}
            assert not kernels & {"s8_generic", "f32_generic"}

    return check


def int8(model: ir.Model) -> ir.Model:
    data = random_data([tensor_spec(value) for value in model.graph.inputs], 4, seed=0)
    spec = TARGET.quantization("int8", find_device(DEVICE, "cpu"))
    return quantize(model, spec, data, method="minmax", allow_random=True).model


@pytest.mark.parametrize("name", ["digits_cnn", "digits_vit", "residual_net", "mobile_net"])
def test_networks(name: str, compare: Any, graph_maker: Any) -> None:
    model = mobile_net(graph_maker(6)) if name == "mobile_net" else levels.network(name, graph_maker)
    compare(model, 100, integer=False)
    compare(int8(model), LEAST_DB.get(name, 90), integer=True)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["resnet20", "squeezenet"])
def test_trained_networks(name: str, compare: Any, shared_dir: Path) -> None:
    model = shared_network(name, shared_dir)
    compare(model, 90, integer=False)
    compare(int8(model), 40, integer=True)


def test_a_level_that_the_processor_lacks_is_refused(
    machines: dict[str, Any], graph_maker: Any, tmp_path: Path
) -> None:
    """Of its own family, and of another one."""
    model = levels.network("residual_net", graph_maker)
    x = np.zeros((2, 3, 12, 12), np.float32)
    for wanted, isa in ((Isa.NEON_I8MM, "neon_dotprod"), (Isa.AVX2, "neon_i8mm"), (Isa.NEON, "vec4")):
        file = tmp_path / f"{wanted.name}.engine"
        file.write_bytes(encode(compile_model(model, wanted).plan))
        status, message = machines[isa].ask("run", str(file), [x], 1)
        assert status and f"built for {wanted.name.lower()}, this processor has {isa}" in message
    file = tmp_path / "taken.engine"
    file.write_bytes(encode(compile_model(model, Isa.NEON_DOTPROD).plan))
    assert isinstance(machines["neon_i8mm"].ask("run", str(file), [x], 1), list)


def test_a_processor_without_vectors_takes_the_generic_kernels(
    graph_maker: Any, run_onnx: Any, worst_db: Any, tmp_path: Path
) -> None:
    model = levels.network("residual_net", graph_maker)
    inputs = next(iter(random_data([tensor_spec(value) for value in model.graph.inputs], 1, seed=3))).inputs
    plan = compile_model(model, Isa.GENERIC).plan
    file = tmp_path / "network.engine"
    file.write_bytes(encode(plan))
    machine = emulated.Emulated(emulated.SCALAR_RISCV)
    assert machine.isas == "generic"
    made = machine.ask("run", str(file), [inputs[one.name] for one in plan.inputs], 2)
    machine.close()
    assert worst_db(run_onnx(model, inputs), made) > 100
    assert "f32_generic" in machine.kernels.split() and "f32_vec4" not in machine.kernels
