"""Recurrences that are written out step by step, as one operator: networks of PyTorch, and what must stay as it is."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser

from edgewise.exporter import export
from edgewise.runtime.tensors import TensorSpec
from edgewise.targets.cpu.native.compile import compile_model
from edgewise.targets.cpu.native.plan import Isa

pytestmark = pytest.mark.usefixtures("libedgewise")
STEPS, WIDTH = 5, 16
_FILE = Path(__file__).resolve().parents[4] / "benchmarks" / "recurrent_networks.py"


@pytest.fixture(scope="module")
def networks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recurrent_networks", _FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def operators(model: ir.Model) -> list[str]:
    return [op.op for op in compile_model(model, Isa.GENERIC).plan.ops]


def db(want: np.ndarray, got: np.ndarray) -> float:
    error = float(np.square(want.astype(np.float64) - got).sum())
    return float(10 * np.log10(np.square(want.astype(np.float64)).sum() / max(error, 1e-30)))


# How many recurrences, and how many operators there may be at most, whatever the number of steps.
@pytest.mark.parametrize(
    ("name", "recurrences", "most"),
    [
        ("selective scan", 1, 28),
        pytest.param("scan operator", 1, 28, marks=pytest.mark.slow),
        pytest.param("rwkv 4", 3, 48, marks=pytest.mark.slow),
        ("rwkv 5", 1, 12),
        pytest.param("retention", 1, 12, marks=pytest.mark.slow),
    ],
)
def test_networks(networks: ModuleType, run_native: Any, name: str, recurrences: int, most: int) -> None:
    import torch

    torch.manual_seed(0)
    network = networks.NETWORKS[name](WIDTH, 8).eval()
    model = export(network, inputs=[TensorSpec("x", "float32", (1, STEPS, WIDTH))], verify=False).model
    made = operators(model)
    assert made.count("recurrence") == recurrences
    assert len(made) <= most
    x = np.random.default_rng(0).standard_normal((1, STEPS, WIDTH)).astype(np.float32)
    with torch.no_grad():
        want = network(torch.from_numpy(x)).numpy()
    assert db(want, run_native(model, {"x": x})[0]) > 110


def model_of(ports: str, steps: list[str], **constants: np.ndarray) -> ir.Model:
    body = "\n".join(steps)
    proto = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> g {ports} {{ {body} }}')
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    return ir.from_proto(proto)


PLACES = {f"i{t}": np.array(t) for t in range(4)}
ONE = np.array([0])


def chain(step: Callable[[int], str], last: str = "") -> list[str]:
    """Four steps of a state [2, 3] on parts of a and b [4, 2, 3]; y [4, 2] is its sum over the last axis."""
    made = []
    for t in range(4):
        made += [f"a{t} = Gather(a, i{t})", f"b{t} = Gather(b, i{t})", step(t)]
        made += [f"s{t} = ReduceSum<keepdims = 0>(h{t + 1}, last)", f"u{t} = Unsqueeze(s{t}, zero)"]
    return [*made, "y = Concat<axis = 0>(u0, u1, u2, u3)", last]


PORTS = "(float[4,2,3] a, float[4,2,3] b, float[2,3] h0) => (float[4,2] y"


@pytest.fixture
def check(run_native: Any, run_onnx: Any) -> Callable[[ir.Model], list[str]]:
    """Compare with ONNX Runtime on random inputs; gives the operators."""

    def run(model: ir.Model) -> list[str]:
        random = np.random.default_rng(1)
        inputs = {
            value.name or "": random.standard_normal(value.shape.numpy()).astype(np.float32)
            for value in model.graph.inputs
            if value.shape is not None
        }
        for want, got in zip(run_onnx(model, inputs), run_native(model, inputs), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
        return operators(model)

    return run


def build(step: Callable[[int], str], ports: str = PORTS + ")", last: str = "", **constants: np.ndarray) -> ir.Model:
    return model_of(ports, chain(step, last), last=np.array([-1]), zero=ONE, **PLACES, **constants)


def plain(t: int) -> str:
    return f"m{t} = Mul(a{t}, h{t}) h{t + 1} = Add(m{t}, b{t})"


def test_a_state_that_comes_in_and_goes_out(check: Any) -> None:
    assert check(build(plain, PORTS + ", float[2,3] hn)", "hn = Identity(h4)")).count("recurrence") == 1


def test_the_greater_of_two(check: Any) -> None:
    assert "recurrence" in check(build(lambda t: f"m{t} = Add(h{t}, a{t}) h{t + 1} = Max(b{t}, m{t})"))


def test_a_sum_without_factors(check: Any) -> None:
    assert "recurrence" in check(build(lambda t: f"h{t + 1} = Add(b{t}, h{t}) m{t} = Identity(a{t})"))


def test_steps_from_the_end(check: Any) -> None:
    model = build(plain)
    for node in model.graph:
        if node.op_type == "Gather":
            value = node.inputs[1]
            assert value is not None
            node.replace_input_with(1, model.graph.initializers[f"i{3 - int(str(value.name)[1])}"])
    assert "recurrence" in check(model)


@pytest.mark.parametrize(
    "step",
    [
        # A factor that depends on the state, as a gate's.
        lambda t: f"g{t} = Sigmoid(h{t}) m{t} = Mul(g{t}, h{t}) h{t + 1} = Add(m{t}, b{t})",
        # One step of another kind.
        lambda t: f"n{t} = {'Tanh' if t == 2 else 'Identity'}(b{t}) m{t} = Mul(a{t}, h{t}) h{t + 1} = Add(m{t}, n{t})",
        # Too few steps are left on either side of one that does something to the state.
        lambda t: plain(t) if t != 1 else f"m{t} = Mul(a{t}, h{t}) n{t} = Add(m{t}, b{t}) h{t + 1} = Relu(n{t})",
    ],
)
def test_what_is_no_recurrence_stays_as_it_is(check: Any, step: Callable[[int], str]) -> None:
    assert "recurrence" not in check(build(step))
