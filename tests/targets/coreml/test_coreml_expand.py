"""Operators that ONNX defines by others, and recurrent cells, beside ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets.coreml import TARGET
from edgewise.targets.devices import DeviceProfile

RNG = np.random.default_rng(6)
STEPS, BATCH, WIDTH, HIDDEN = 5, 2, 4, 3


def cell_model(op: str, direction: str, attributes: dict[str, Any], state: bool) -> ir.Model:
    ways, gates = (2 if direction == "bidirectional" else 1), {"GRU": 3, "RNN": 1}[op] * HIDDEN
    shapes = {"w": (ways, gates, WIDTH), "r": (ways, gates, HIDDEN), "b": (ways, 2 * gates)}
    arrays = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    names = ["x", "w", "r", "b", "", "h"] if state else ["x", "w", "r", "b"]
    node = helper.make_node(op, names, ["y", "y_h"], name="cell", hidden_size=HIDDEN, direction=direction, **attributes)
    ports = [("x", [STEPS, BATCH, WIDTH]), *([("h", [ways, BATCH, HIDDEN])] if state else [])]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ports]
    outs = [("y", [STEPS, ways, BATCH, HIDDEN]), ("y_h", [ways, BATCH, HIDDEN])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outs]
    graph = helper.make_graph([node], "g", inputs, outputs, [numpy_helper.from_array(a, n) for n, a in arrays.items()])
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


def check(model: ir.Model, build_model: Callable[..., Any], least_db: float = 100) -> None:
    executor, _, _ = build_model(model, compute_precision="float32")
    inputs = {
        str(value.name): RNG.standard_normal([int(dim) for dim in value.shape or ()]).astype(np.float32)  # type: ignore[arg-type]
        for value in model.graph.inputs
    }
    want = OnnxRunner(model, optimize=False).run(inputs)
    assert min(parity.sqnr_db for parity in compare_outputs([want], [executor.run(inputs)])) >= least_db


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", ["GRU", "RNN"])
def test_recurrent_cells(op: str, direction: str, build_model: Callable[..., Any]) -> None:
    for before, state in ((0, False), (1, True)):
        check(cell_model(op, direction, {"linear_before_reset": before} if op == "GRU" else {}, state), build_model)


def test_many_steps_are_refused(iphone: DeviceProfile) -> None:
    model = cell_model("GRU", "forward", {}, False)
    model.graph.inputs[0].shape = ir.Shape([1000, BATCH, WIDTH])
    (entry,) = TARGET.support(model, iphone)
    assert not entry.taken and "up to 256" in entry.reason


def defined(op: str, shapes: list[list[int]], attributes: dict[str, Any], opset: int, out: list[int]) -> ir.Model:
    names = [f"x{index}" for index in range(len(shapes))]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, shapes, strict=True)]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], name="the_node", **attributes)], "g", inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
    )  # fmt: skip
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10))


@pytest.mark.parametrize(
    ("op", "shapes", "attributes", "opset", "out"),
    [
        ("MeanVarianceNormalization", [[2, 3, 4, 5]], {}, 18, [2, 3, 4, 5]),
        ("Shrink", [[3, 4]], {"lambd": 0.5, "bias": 0.1}, 18, [3, 4]),
        ("Attention", [[1, 2, 5, 4], [1, 2, 5, 4], [1, 2, 5, 4]], {}, 23, [1, 2, 5, 4]),
    ],
)
def test_what_onnx_defines_is_written_out(
    op: str, shapes: list[list[int]], attributes: dict[str, Any], opset: int, out: list[int], build_model: Callable[..., Any],
    iphone: DeviceProfile,
) -> None:  # fmt: skip
    model = defined(op, shapes, attributes, opset, out)
    (entry,) = TARGET.support(model, iphone)
    assert (entry.node, entry.op, entry.taken) == ("the_node", op, True), entry.reason
    check(model, build_model, 90)
