"""QDQ graphs of other tools, whose grids have zero points: the same numbers where that can be, and close to them where not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets.tensorrt import TARGET
from edgewise.targets.tensorrt.prepare import prepare
from edgewise.targets.tensorrt.symmetric import SymmetricGrids


def foreign(graph_maker: Any, zero: int, weight_zero: Any = 0, dtype: type = np.uint8) -> ir.Model:
    """x ─► Q/DQ ─► Conv(DQ(w)) with the zero points given."""
    g = graph_maker()
    scale = g.constant("scale", np.float32(0.02))
    point = g.constant("zero", np.array(zero, dtype))
    g.add("QuantizeLinear", ["x", scale, point], "q")
    g.add("DequantizeLinear", ["q", scale, point], "dq")
    weights = np.random.default_rng(0).integers(30, 220, (8, 4, 3, 3)).astype(np.uint8)
    per_channel = np.ndim(weight_zero) > 0
    w_scale = g.constant("w_scale", np.full(8, 0.01, np.float32) if per_channel else np.float32(0.01))
    w_zero = g.constant("w_zero", np.asarray(weight_zero, np.uint8))
    g.add("DequantizeLinear", [g.constant("w", weights), w_scale, w_zero], "w_dq", axis=0)
    g.add("Conv", ["dq", "w_dq"], "y", pads=[1, 1, 1, 1])
    return g.model({"x": [1, 4, 8, 8]}, {"y": [1, 8, 8, 8]})


def run(model: ir.Model, low: float, high: float) -> np.ndarray:
    x = np.random.default_rng(1).uniform(low, high, (1, 4, 8, 8)).astype(np.float32)
    return OnnxRunner(model, optimize=False).run({"x": x})["y"]


@pytest.mark.parametrize("weight_zero", [128, [125, 126, 127, 128, 127, 126, 125, 124]])
def test_around_the_middle_nothing_changes(graph_maker: Any, weight_zero: Any) -> None:
    model = foreign(graph_maker, 128, weight_zero)
    want = run(model, -2, 2)
    made = prepare(model, "float32")
    assert made.notes == [], "weights of 30 to 219 around 124 to 128 fit int8 as they are"
    np.testing.assert_allclose(run(made.model, -2, 2), want, rtol=1e-5, atol=1e-4)
    zeros = [node.inputs[2] for node in made.model.graph if node.op_type.endswith("Linear")]
    assert all(zero.dtype == ir.DataType.INT8 and not zero.const_value.numpy().any() for zero in zeros)


@pytest.mark.parametrize("zero", [0, 3, 255])
def test_other_grids_are_made_anew_and_named(graph_maker: Any, zero: int) -> None:
    model = foreign(graph_maker, zero, 128)
    low, high = -0.02 * zero, 0.02 * (255 - zero)
    low, high = low - 1, high + 1  # what the old grid cut off is cut off still
    want = run(model, low, high)
    made = prepare(model, "float32")
    assert "2 8-bit grids had a zero point" in made.notes[0] and "q_node, dq_node" in made.notes[0]
    error = np.sqrt(np.mean(np.square(run(made.model, low, high) - want)) / np.mean(np.square(want)))
    assert 0 < error < 0.02, "half of the steps, and no more"


@given(zero=st.integers(0, 255), scale=st.floats(1e-3, 10))
def test_the_new_grid_holds_all_of_the_old_one(zero: int, scale: float) -> None:
    node = ir.node("DequantizeLinear", [ir.Value(name="q"), *_constants(scale, zero)], name="dq")
    graph = ir.Graph([node.inputs[0]], [node.outputs[0]], nodes=[node], opset_imports={"": 18})
    SymmetricGrids()(ir.Model(graph, ir_version=10))
    reach = 127 * float(node.inputs[1].const_value.numpy())
    least, greatest = np.float32(scale) * (0 - zero), np.float32(scale) * (255 - zero)
    step = np.float32(scale)
    assert reach * (1 + 1e-5) >= max(-least, greatest) - (step if zero == 128 else 0), (
        "int8 ends at 127: one step of -128 is kept"
    )
    assert not node.inputs[2].const_value.numpy().any()


def _constants(scale: float, zero: int) -> list[ir.Value]:
    arrays = (("scale", np.float32(scale)), ("zero", np.uint8(zero)))
    return [ir.Value(name=name, const_value=ir.tensor(np.asarray(array), name=name)) for name, array in arrays]


def test_the_builder_takes_them(graph_maker: Any, make_bundle: Any) -> None:
    _, result = make_bundle(TARGET, foreign(graph_maker, 7, 128))
    assert result.proof["products"] == {"int8": 1}
    assert any("had a zero point" in note for note in result.notes)


def test_what_overflows_on_samples_stays_in_float32(graph_maker: Any, make_bundle: Any, tmp_path: Any) -> None:
    g = graph_maker()
    g.add("MatMul", ["x", g.constant("w", np.full((8, 8), 100, np.float32))], "scores")
    g.add("Mul", ["scores", g.constant("small", np.float32(1e-4))], "scaled")
    g.add("Softmax", ["scaled"], "p", axis=-1)
    g.add("MatMul", ["p", g.weights("v", 8, 8)], "y")
    model = g.model({"x": [2, 8]}, {"y": [2, 8]})
    np.save(tmp_path / "large.npy", np.full((3, 2, 8), 100, np.float32))
    kept, result = make_bundle(TARGET, model, options={"calibration": str(tmp_path / "large.npy")})
    assert result.proof["products"] == {"float16": 1, "float32": 1}
    assert any("its output reached 8e+04 on the samples" in note for note in result.notes), result.notes
    x = {"x": np.full((2, 8), 100, np.float32)}
    want = OnnxRunner(model).run(x)["y"]
    np.testing.assert_allclose(TARGET.executor(kept).run(x)["y"], want, rtol=1e-2, atol=1e-2)
    without, result = make_bundle(TARGET, model, name="without")
    assert result.proof["products"] == {"float16": 2}
    if TARGET.executor(without).stand_in:
        assert not np.isfinite(TARGET.executor(without).run(x)["y"]).all(), "infinity times anything, as on the GPU"
