"""LSTM, GRU and RNN of any number of steps and any batch, beside ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser

from edgewise.targets.cpu.native.compile import NotTakenError, compile_model
from edgewise.targets.cpu.native.engine_file import encode
from edgewise.targets.cpu.native.plan import Isa

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
# hidden numbers around the panel's 16, and the attributes
CASES = {
    "lstm": ("LSTM", 16, ""),
    "peepholes": ("LSTM", 20, ", clip = 0.4"),
    "input forget": ("LSTM", 7, ", input_forget = 1"),
    "functions": ("LSTM", 3, ', activations = ["Sigmoid","Softsign","Relu","Softplus","Tanh","Sigmoid"]'),
    "gru": ("GRU", 20, ", clip = 0.4"),
    "reset after": ("GRU", 7, ", linear_before_reset = 1"),
    "rnn": ("RNN", 33, ", clip = 0.3"),
}


def layer(kind: str, hidden: int, attributes: str, *, peepholes: bool) -> ir.Model:
    """Both directions, with states and lengths from outside; steps and batch are open."""
    random, gates = np.random.default_rng(0), GATES[kind]
    lstm = kind == "LSTM"
    state = f"float[2,N,{hidden}]"
    outputs = f"float[T,2,N,{hidden}] y, {state} last" + (f", {state} cell" if lstm else "")
    proto = parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        g (float[T,N,5] x, int32[N] lengths, {state} h{f", {state} c" if lstm else ""}) => ({outputs}) {{
            y, last{", cell" if lstm else ""} = {kind}<hidden_size = {hidden}, direction = "bidirectional"{attributes}>(
                x, w, r, b, lengths, h{", c" if lstm else ""}{", p" if peepholes else ""})
        }}"""
    )
    shapes = {"w": (2, gates * hidden, 5), "r": (2, gates * hidden, hidden), "b": (2, 2 * gates * hidden)}
    shapes |= {"p": (2, 3 * hidden)} if peepholes else {}
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(random.uniform(-0.6, 0.6, shape).astype(np.float32), name)
        for name, shape in shapes.items()
    )
    return ir.from_proto(proto)


def context_of(module: Any, model: ir.Model, folder: Path, *, threads: int = 1, **limits: int) -> Any:
    file = folder / "n.engine"
    file.write_bytes(encode(compile_model(model, Isa.GENERIC, limits=limits).plan))
    return module.Context(module.Engine(str(file)), threads=threads)


@pytest.mark.parametrize("case", CASES)
def test_any_number_of_steps(libedgewise: Any, run_onnx: Any, tmp_path: Path, case: str) -> None:
    """One engine, shorter and longer in turns; the lengths of a batch end before it."""
    kind, hidden, attributes = CASES[case]
    model = layer(kind, hidden, attributes, peepholes=case == "peepholes")
    context = context_of(libedgewise, model, tmp_path, threads=2)
    random = np.random.default_rng(1)
    for steps, batch in ((6, 5), (1, 1), (9, 2)):
        inputs = {
            value.name or "": random.standard_normal((2, batch, hidden)).astype(np.float32)
            for value in model.graph.inputs
        }
        inputs["x"] = random.standard_normal((steps, batch, 5)).astype(np.float32)
        inputs["lengths"] = random.integers(1, steps + 1, batch).astype(np.int32)
        made = context.run([inputs[value.name or ""] for value in model.graph.inputs])
        for want, got in zip(run_onnx(model, inputs), made, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_a_layer_is_one_operator(libedgewise: Any, run_onnx: Any, tmp_path: Path) -> None:
    """However many steps; and without states it begins at 0."""
    model = layer("LSTM", 16, "", peepholes=False)
    for node in model.graph:
        for slot in (4, 5, 6):
            node.replace_input_with(slot, None)
    del model.graph.inputs[1:]
    plan = compile_model(model, Isa.GENERIC).plan
    assert [op.op for op in plan.ops].count("recurrent") == 2
    x = np.random.default_rng(2).standard_normal((1500, 1, 5)).astype(np.float32)
    made = context_of(libedgewise, model, tmp_path).run([x])
    for want, got in zip(run_onnx(model, {"x": x}), made, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_a_stated_bound_holds_the_memory(libedgewise: Any, tmp_path: Path) -> None:
    model = layer("GRU", 7, "", peepholes=False)
    context = context_of(libedgewise, model, tmp_path, T=8, N=2)
    before = context.memory()
    for steps in (8, 3):
        context.run([np.zeros((steps, 2, 5), np.float32), np.full(2, steps, np.int32), np.zeros((2, 2, 7), np.float32)])
    assert context.memory() == before
    with pytest.raises(libedgewise.NativeError, match="8"):
        context.run([np.zeros((9, 2, 5), np.float32), np.full(2, 9, np.int32), np.zeros((2, 2, 7), np.float32)])


def test_functions_that_are_not_taken() -> None:
    model = layer("RNN", 3, ', activations = ["Affine", "Tanh"]', peepholes=False)
    with pytest.raises(NotTakenError, match="functions Affine, Tanh"):
        compile_model(model, Isa.GENERIC)
