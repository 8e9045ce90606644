"""Recurrences that PyTorch writes out step by step: libedgewise with and without recognising them, beside ONNX Runtime.

    python benchmarks/recurrences.py --steps 64 --width 256 --states 16
    python benchmarks/recurrences.py --layers     LSTM and GRU instead, which are one operator a direction

Checks each engine against ONNX Runtime first. Prints the operators of the engine, seconds to compile, and the least milliseconds of one run on one thread.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from onnx import numpy_helper, parser
from recurrent_networks import NETWORKS

from edgewise.exporter import export
from edgewise.runtime.tensors import TensorSpec
from edgewise.targets.cpu.native import prepare
from edgewise.targets.cpu.native.compile import compile_model
from edgewise.targets.cpu.native.engine_file import encode
from edgewise.targets.cpu.native.plan import Isa
from edgewise.targets.cpu.native.recurrence.lift import Lifted

_LEAST_DB = 90
_SECONDS = 1.0


def least_ms(run: Callable[[], Any]) -> float:
    """The least time of many runs."""
    run()
    times = []
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times) * 1e3


def native(model: ir.Model, x: np.ndarray, want: np.ndarray, folder: Path) -> tuple[int, float, float]:
    """Operators, seconds to compile, milliseconds."""
    begin = time.perf_counter()
    plan = compile_model(model, Isa.GENERIC).plan
    seconds = time.perf_counter() - begin
    file = folder / "n.engine"
    file.unlink(missing_ok=True)
    file.write_bytes(encode(plan))
    module: Any = importlib.import_module("edgewise.runtime._native")
    context = module.Context(module.Engine(str(file)), threads=1)
    got = context.run([x])[0]
    db = 10 * np.log10((want.astype(float) ** 2).sum() / max(((want - got).astype(float) ** 2).sum(), 1e-30))
    if db < _LEAST_DB:
        raise SystemExit(f"{db:.1f} dB from ONNX Runtime")
    return len(plan.ops), seconds, least_ms(lambda: context.run([x]))


def row(name: str, steps: int, width: int, states: int) -> str:
    """One network's line of the table."""
    torch.manual_seed(0)
    spec = TensorSpec("x", "float32", (1, steps, width))
    model = export(NETWORKS[name](width, states).eval(), inputs=[spec], verify=False).model
    x = np.random.default_rng(0).standard_normal(spec.shape).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    want = session.run(None, {"x": x})[0]
    with tempfile.TemporaryDirectory() as folder:
        with mock.patch.object(prepare, "find_recurrences", lambda _: Lifted()):
            before = native(model, x, want, Path(folder))
        after = native(model, x, want, Path(folder))
    theirs = least_ms(lambda: session.run(None, {"x": x}))
    operators, seconds, times = zip(before, after, strict=True)
    numbers = [*operators, *(f"{one:.1f}" for one in seconds), *(f"{one:.3f}" for one in (*times, theirs))]
    return f"| {' | '.join(map(str, [name, *numbers]))} |"


def layer(kind: str, hidden: int, batch: int, steps: int) -> str:
    """One recurrent layer's line: operators, milliseconds, ONNX Runtime's."""
    random, gates, numbers = np.random.default_rng(0), {"LSTM": 4, "GRU": 3}[kind], 80
    proto = parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 21]> g (float[T,N,{numbers}] x) => (float[T,1,N,{hidden}] y) {{
            y = {kind}<hidden_size = {hidden}>(x, w, r, b)
        }}"""
    )
    shapes = {"w": (1, gates * hidden, numbers), "r": (1, gates * hidden, hidden), "b": (1, 2 * gates * hidden)}
    for name, shape in shapes.items():
        array = (random.standard_normal(shape) * 0.15).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    x = random.standard_normal((steps, batch, numbers)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    with tempfile.TemporaryDirectory() as folder:
        operators, _, ms = native(ir.from_proto(proto), x, session.run(None, {"x": x})[0], Path(folder))
    theirs = least_ms(lambda: session.run(None, {"x": x}))
    return f"| {kind} of {hidden} | {batch} | {operators} | {ms:.3f} | {theirs:.3f} |"


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser()
    for name, value in (("--steps", 64), ("--width", 256), ("--states", 16)):
        arguments.add_argument(name, type=int, default=value)
    arguments.add_argument("--layers", action="store_true", help="LSTM and GRU of 80 numbers, steps and batch open")
    given = arguments.parse_args()
    if given.layers:
        print("| layer | batch | operators | ms | ONNX Runtime |\n|---|---|---|---|---|")
        for kind, hidden, batch in (("LSTM", 128, 1), ("LSTM", 256, 1), ("LSTM", 128, 16), ("GRU", 128, 1)):
            print(layer(kind, hidden, batch, given.steps), flush=True)
        return
    print(
        "| network | operators: written out | fused | compiled in s | fused | ms | fused | ONNX Runtime |\n|---|---|---|---|---|---|---|---|"
    )
    for name in NETWORKS:
        print(row(name, given.steps, given.width, given.states), flush=True)


if __name__ == "__main__":
    main()
