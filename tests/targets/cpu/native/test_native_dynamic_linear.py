"""Linear layers of rows rounded at run time: one operator each, beside ONNX Runtime on the same graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.quantize import quantize
from edgewise.runtime.engines import RunOptions, open_engine
from edgewise.targets import find_device
from edgewise.targets.cpu import TARGET
from edgewise.targets.cpu.native.build import precision
from edgewise.targets.cpu.native.compile import NotTakenError, compile_model
from edgewise.targets.cpu.native.plan import Isa

pytestmark = pytest.mark.usefixtures("libedgewise")


def in_scheme(model: ir.Model, scheme: str) -> ir.Model:
    return quantize(model, TARGET.quantization(scheme, find_device("x86-64-v4-vnni", "cpu")), None).model


def found(model: ir.Model) -> list[Any]:
    return [
        op
        for op in compile_model(model, Isa.AVX2).plan.ops
        if op.op in ("dynamic_linear", "conv", "quantize", "dequantize")
    ]


@pytest.mark.parametrize("scheme", ["w8d8", "w8d8g16", "w8d8g32"])
def test_a_transformer(
    scheme: str, small_graph: Callable[[str], ir.Model], sample: Any, run_native: Any, run_onnx: Any, worst_db: Any
) -> None:
    given = small_graph("transformer_block")
    model = in_scheme(given, scheme)
    assert [(op.op, precision(op)) for op in found(model)] == [("dynamic_linear", "int8")] * 6
    inputs = sample(model)
    native = run_native(model, inputs)
    # A sum in another order may tip a later rounding to the next step.
    assert worst_db(run_onnx(model, inputs), native) > 55 > worst_db(run_onnx(given, inputs), native) > 30


@pytest.mark.parametrize("size", [(2, 1, 64, 33), (1, 37, 128, 16), (3, 19, 40, 5), (1, 120, 96, 64)])
@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
def test_layers(
    op: str, size: tuple[int, ...], graph_maker: Any, sample: Any, run_native: Any, run_onnx: Any, worst_db: Any
) -> None:
    """One layer with a bias and a Relu: the same integers, so the same numbers."""
    batch, tokens, inputs, outputs = size
    g, shape = graph_maker(), [tokens, inputs] if op == "Gemm" else [batch, tokens, inputs]
    if op == "Gemm":
        x = g.add("Gemm", ["x", g.weights("w", outputs, inputs), g.weights("b", outputs)], "m", transB=1)
    else:
        x = g.add("Add", [g.add("MatMul", ["x", g.weights("w", inputs, outputs)], "m"), g.weights("b", outputs)], "a")
    g.add("Relu", [x], "y")
    model = in_scheme(
        g.model({"x": shape}, {"y": [*shape[:-1], outputs]}, opset=21), "w8d8g32" if inputs % 32 == 0 else "w8d8"
    )
    assert [op.op for op in found(model)] == ["dynamic_linear"]
    given = sample(model)
    for threads in (1, 2):
        assert worst_db(run_onnx(model, given), run_native(model, given, threads)) > 100


def test_any_number_of_tokens(graph_maker: Any, sample: Any, run_native: Any, run_onnx: Any, worst_db: Any) -> None:
    g = graph_maker()
    g.add("MatMul", ["x", g.weights("w", 64, 48)], "y")
    model = in_scheme(g.model({"x": ["N", "T", 64]}, {"y": ["N", "T", 48]}, opset=21), "w8d8g32")
    assert [op.op for op in found(model)] == ["dynamic_linear"]
    for dynamic in (1, 3, 18):
        inputs = sample(model, dynamic=dynamic)
        assert worst_db(run_onnx(model, inputs), run_native(model, inputs)) > 100


def change_steps(model: ir.Model) -> None:
    model.graph.initializers["x_steps"].const_value = ir.tensor(np.float32(127), name="x_steps")


def change_axis(model: ir.Model) -> None:
    model.graph.initializers["x_last_axis"].const_value = ir.tensor(np.array([-2]), name="x_last_axis")


def change_zero(model: ir.Model) -> None:
    model.graph.initializers["x_zero"].const_value = ir.tensor(np.float32(1), name="x_zero")


def swap_ends(model: ir.Model) -> None:
    for node in model.graph:
        if node.op_type == "Neg":
            node.op_type = "Abs"


@pytest.mark.parametrize("change", [change_steps, change_axis, change_zero, swap_ends])
def test_other_rounding_is_not_taken_for_it(change: Callable[[ir.Model], None], graph_maker: Any) -> None:
    g = graph_maker()
    g.add("MatMul", ["x", g.weights("w", 64, 48)], "y")
    model = in_scheme(g.model({"x": [1, 5, 64]}, {"y": [1, 5, 48]}, opset=21), "w8d8g32")
    change(model)
    with pytest.raises(NotTakenError, match="scale"):
        compile_model(model, Isa.AVX2)


def test_onnx_runtime_rounds_once(
    small_graph: Callable[[str], ir.Model], make_bundle: Any, sample: Any, run_onnx: Any, worst_db: Any
) -> None:
    """Its own merging of weights and MatMul would round activations again; the bundle says to leave that out."""
    model = in_scheme(small_graph("transformer_block"), "w8d8g32")
    bundle, result = make_bundle(TARGET, model, options={"engine": "onnxruntime"})
    assert result.settings["left_out"] == ["QDQSelectorActionTransformer"]
    inputs = sample(model)
    made = open_engine(bundle, RunOptions(threads=1)).run(inputs)
    assert worst_db(run_onnx(model, inputs), list(made.values())) > 55
