"""A network that comes quantized, as quantization-aware training leaves it, keeps its scales and integers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgewise.quantize import QuantSpec, quantize
from edgewise.runtime.data import Dataset
from edgewise.runtime.onnx_runner import OnnxRunner

# What torch.ao exports: fake quantization of the input and, per channel, of the weights; the second layer came in float.
_QAT = (
    "(float[1, 5, 8] x, float xs, int8 xz, int8[8, 12] w, float[12] ws, int8[12] wz, float[12, 4] v) => (float[1, 5, 4] y)"
    "{ q = QuantizeLinear(x, xs, xz) d = DequantizeLinear(q, xs, xz) f = DequantizeLinear<axis = 1>(w, ws, wz)"
    "  t = MatMul(d, f) u = Relu(t) y = MatMul(u, v) }"
)


def test_scales_that_came_with_the_network_stay(graph: Callable[..., ir.Model], normal: Callable[..., Dataset]) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "xs": np.array(0.0371, np.float32), "xz": np.array(0, np.int8),
        "w": rng.integers(-127, 128, size=(8, 12)).astype(np.int8), "ws": rng.uniform(0.001, 0.01, 12).astype(np.float32),
        "wz": np.zeros(12, np.int8), "v": rng.normal(size=(12, 4)).astype(np.float32),
    }  # fmt: skip
    model = graph(_QAT, arrays)
    made = quantize(model, QuantSpec(activation_dtype="int8", activation_symmetric=True), normal(16, (1, 5, 8)))
    held = {name: value.const_value.numpy() for name, value in made.model.graph.initializers.items()}  # type: ignore[union-attr]
    for name in ("xs", "w", "ws"):
        np.testing.assert_array_equal(held[name], arrays[name])
    first = next(node for node in made.model.graph if node.op_type == "QuantizeLinear" and node.inputs[0].name == "x")  # type: ignore[union-attr]
    assert first.inputs[1] is not None
    assert first.inputs[1].name == "xs"
    # The input is rounded once, by the scale that training found, however often it is looked at.
    assert sum(node.op_type == "QuantizeLinear" and node.inputs[0].name == "x" for node in made.model.graph) == 1  # type: ignore[union-attr]
    rows = {row["name"]: row for row in made.report["layers"]}
    products = [str(node.name) for node in made.model.graph if node.op_type == "MatMul"]
    assert rows[products[0]]["weight_dtype"] == "as it came"
    assert any("came quantized; their scales are kept" in note for note in made.report["notes"])
    x = next(iter(normal(1, (1, 5, 8), seed=5))).inputs
    want, have = (OnnxRunner(each).run(x)["y"] for each in (model, made.model))
    assert np.square(have - want).sum() < 0.01 * np.square(want).sum()
