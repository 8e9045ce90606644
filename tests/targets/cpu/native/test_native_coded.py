"""Weights in 4 and 8 bits under float activations: multiplied as they are stored, beside ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from edgewise.quantize import quantize
from edgewise.runtime.data import random_data
from edgewise.targets import find_device
from edgewise.targets.cpu import TARGET
from edgewise.targets.cpu.native.compile import NotTakenError, compile_model
from edgewise.targets.cpu.native.engine_file import encode
from edgewise.targets.cpu.native.plan import Isa, Plan
from edgewise.targets.nodes import tensor_spec

pytestmark = pytest.mark.usefixtures("libedgewise")
RANGES = {"INT4": (-8, 7), "UINT4": (0, 15), "INT8": (-128, 127), "UINT8": (0, 255)}


def typed(g: Any, name: str, dtype: str, array: np.ndarray) -> str:
    g.initializers.append(
        helper.make_tensor(name, getattr(TensorProto, dtype), array.shape, array.reshape(-1).tolist())
    )
    return name


def matmul_net(
    g: Any, dtype: str, block: int, *, rows: int, tokens: int, columns: int = 40, zero: bool = True, after: bool = False
) -> ir.Model:
    """X times weights [rows, columns] behind DequantizeLinear: in blocks along the rows, or (0) with a scale per column."""
    random = np.random.default_rng(rows + columns)
    low, high = RANGES[dtype]
    shape = (-(-rows // block), columns) if block else (columns,)
    w = typed(g, "w", dtype, random.integers(low, high + 1, (rows, columns)))
    inputs = [w, g.constant("s", random.uniform(0.01, 0.1, shape).astype(np.float32))]
    if zero:
        inputs.append(typed(g, "z", dtype, random.integers(low, high + 1, shape)))
    how = {"block_size": block, "axis": 0} if block else {"axis": 1}
    x = g.add("MatMul", ["x", g.add("DequantizeLinear", inputs, "d", **how)], "m")
    if after:
        x = g.add("Add", [x, g.weights("b", columns)], "a")
        x = g.add("Mul", [x, g.constant("f", random.uniform(1, 2, columns).astype(np.float32))], "f1")
        x = g.add("Relu", [x], "r")
    g.add("Identity", [x], "y")
    return g.model({"x": [2, tokens, rows]}, {"y": [2, tokens, columns]}, opset=21)


def layers(plan: Plan) -> list[Any]:
    return [op for op in plan.ops if op.op == "conv"]


@pytest.mark.parametrize("dtype", RANGES)
@pytest.mark.parametrize("block", [0, 16, 32])
@pytest.mark.parametrize(("rows", "tokens"), [(64, 1), (64, 37), (80, 5), (96, 120)])
def test_layers(
    dtype: str,
    block: int,
    rows: int,
    tokens: int,
    graph_maker: Any,
    sample: Any,
    run_native: Any,
    run_onnx: Any,
    worst_db: Any,
) -> None:
    model = matmul_net(graph_maker(), dtype, block, rows=rows, tokens=tokens, zero=tokens != 5, after=tokens == 37)
    found = layers(compile_model(model, Isa.AVX2).plan)
    assert [op.attributes["weight_bits"] for op in found] == [4 if "4" in dtype else 8]
    inputs = sample(model)
    for threads in (1, 2):
        assert worst_db(run_onnx(model, inputs), run_native(model, inputs, threads)) > 100


@pytest.mark.parametrize(("columns", "rows"), [(1, 3), (15, 17), (16, 16), (17, 33), (65, 130)])
def test_sizes_around_a_line(
    columns: int, rows: int, graph_maker: Any, sample: Any, run_native: Any, run_onnx: Any, worst_db: Any
) -> None:
    model = matmul_net(graph_maker(), "INT4", 0, rows=rows, tokens=19, columns=columns)
    inputs = sample(model)
    assert worst_db(run_onnx(model, inputs), run_native(model, inputs)) > 100


@pytest.mark.parametrize(("scheme", "bits"), [("w4g32", 4), ("w8", 8), ("w4", 4)])
def test_schemes_of_weights_alone(
    scheme: str,
    bits: int,
    small_graph: Callable[[str], ir.Model],
    sample: Any,
    run_native: Any,
    run_onnx: Any,
    worst_db: Any,
) -> None:
    model = small_graph("transformer_block")
    data = random_data([tensor_spec(value) for value in model.graph.inputs], 2, seed=0)
    spec = TARGET.quantization(scheme, find_device("x86-64-v4-vnni", "cpu"))
    model = quantize(model, spec, data, allow_random=True).model
    plan = compile_model(model, Isa.AVX2).plan
    assert {op.attributes.get("weight_bits") for op in layers(plan)} == {bits}
    inputs = sample(model)
    assert worst_db(run_onnx(model, inputs), run_native(model, inputs)) > 100


def test_four_bits_are_half_a_byte(graph_maker: Any) -> None:
    model = matmul_net(graph_maker(), "UINT4", 32, rows=512, tokens=4, columns=512)
    assert len(encode(compile_model(model, Isa.AVX2).plan)) < 512 * 512 * (0.5 + 8 / 32) + 4096


def test_blocks_that_do_not_fit_are_refused(graph_maker: Any) -> None:
    g = graph_maker()
    w = typed(g, "w", "INT8", np.ones((8, 8), np.int8))
    x = g.add("DequantizeLinear", [w, g.constant("s", np.ones((3, 8), np.float32))], "d", block_size=4, axis=0)
    g.add("MatMul", ["x", x], "y")
    with pytest.raises(NotTakenError, match=r"scales \[3, 8\] for integers \[8, 8\] in blocks of 4"):
        compile_model(g.model({"x": [2, 8]}, {"y": [2, 8]}, opset=21), Isa.AVX2)
