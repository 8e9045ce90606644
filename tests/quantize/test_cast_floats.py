"""float16, bfloat16 and FP8 as schemes: close in other people's kernels, float32 where samples show the need, and who refuses."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from edgewise.quantize import QuantizeError, QuantSpec, quantize
from edgewise.quantize.passes.cast_floats import CastFloats
from edgewise.quantize.schemes import SHORT_FLOATS, with_scheme
from edgewise.runtime.data import Dataset
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets import TargetError, find_device, find_target

Graph = Callable[..., ir.Model]
Normal = Callable[..., Dataset]

# An MLP with normalisation in front and a Softmax behind, and a product whose values depend on ``big``.
_NET = (
    "(float[1, 6, 16] x, float[16] g, float[16] s, float[16, 32] a, float[32] ab, float[32, 16] b, float[16, 16] big)"
    " => (float[1, 6, 16] y)"
    "{ n = LayerNormalization(x, g, s) t = MatMul(n, a) u = Add(t, ab) v = Relu(u) w = MatMul(v, b) p = Softmax(w)"
    "  k = MatMul(x, big) r = Relu(k) z = Tanh(r) y = Add(p, z) }"
)


def arrays(scale: float = 0.3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"g": (16,), "s": (16,), "a": (16, 32), "ab": (32,), "b": (32, 16), "big": (16, 16)}
    made = {name: (rng.normal(size=shape) * 0.3).astype(np.float32) for name, shape in shapes.items()}
    return made | {"big": (rng.normal(size=(16, 16)) * scale).astype(np.float32)}


def dtypes(model: ir.Model, op: str) -> list[ir.DataType | None]:
    return [node.outputs[0].dtype for node in model.graph if node.op_type == op]


def sqnr_db(want: np.ndarray, have: np.ndarray) -> float:
    return float(10 * np.log10(np.square(want).sum() / max(float(np.square(have - want).sum()), 1e-30)))


@pytest.mark.parametrize(("scheme", "least", "most"), [("fp16", 55, 110), ("bf16", 35, 65)])
def test_casts_are_close_in_the_reference_evaluator(
    graph: Graph, normal: Normal, scheme: str, least: float, most: float
) -> None:
    model = graph(_NET, arrays())
    data = normal(8, (1, 6, 16))
    made = quantize(model, with_scheme(QuantSpec(), scheme), data)
    proto = ir.to_proto(made.model)
    onnx.checker.check_model(proto, full_check=True)
    x = next(iter(data)).inputs
    want = OnnxRunner(model).run(x)["y"]
    have = np.asarray(ReferenceEvaluator(proto).run(None, x)[0])
    assert have.dtype == np.float32
    assert least < sqnr_db(want, have) < most, "close, and yet not float32 in disguise"
    kind = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}[scheme]
    assert set(dtypes(made.model, "MatMul")) == {kind}
    for op in ("LayerNormalization", "Softmax"):
        assert dtypes(made.model, op) == [ir.DataType.FLOAT]
    assert {row["precision"] for row in made.report["layers"]} == {SHORT_FLOATS[scheme]}


def test_samples_show_what_overflows_float16(graph: Graph, normal: Normal) -> None:
    model = graph(_NET, arrays(scale=8000.0))
    data = normal(8, (1, 6, 16))
    half = quantize(model, with_scheme(QuantSpec(), "fp16"), data)
    kept = {row["node"]: row["reason"] for row in half.report["kept_float"]}
    wide = next(str(node.name) for node in model.graph if node.outputs[0].name == "k")
    assert "its output reached" in kept[wide]
    assert "on the samples, too near to the largest float16" in kept[wide]
    assert any("may be too large for float16" in reason for reason in kept.values())  # the Relu behind it
    x = next(iter(data)).inputs
    assert sqnr_db(OnnxRunner(model).run(x)["y"], OnnxRunner(half.model).run(x)["y"]) > 55
    brain = quantize(model, with_scheme(QuantSpec(), "bf16"), data)
    assert wide not in {row["node"] for row in brain.report["kept_float"]}


# LayerNorm as JAX writes it: sums that are then multiplied by 1/64.
_SUMS = (
    "(float[1, 6, 64] x, float[64, 8] w) => (float[1, 6, 8] y)"
    "<int64[1] axis = {2}, float share = {0.015625}, float least = {0.001}>"
    "{ s = ReduceSum(x, axis) m = Mul(s, share) c = Sub(x, m) q = Mul(x, x) t = ReduceSum(q, axis) e = Mul(t, share)"
    "  o = Mul(m, m) v = Sub(e, o) a = Add(v, least) d = Sqrt(a) r = Reciprocal(d) n = Mul(c, r) y = MatMul(n, w) }"
)


def test_sums_stay_in_float32_until_they_are_small_again(graph: Graph) -> None:
    rng = np.random.default_rng(0)
    model = graph(_SUMS, {"w": rng.normal(size=(64, 8)).astype(np.float32)})
    x = {"x": (60 * rng.normal(size=(1, 6, 64))).astype(np.float32)}  # squares add up to 230,000
    want = OnnxRunner(model).run(x)["y"]
    made = ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(model)))
    CastFloats()(made)
    assert dtypes(made, "MatMul") == [ir.DataType.FLOAT16]
    assert sqnr_db(want, np.asarray(ReferenceEvaluator(ir.to_proto(made)).run(None, x)[0])) > 50


def test_fp8_in_onnx_runtime(graph: Graph, normal: Normal) -> None:
    model = graph(_NET, arrays())
    data = normal(32, (1, 6, 16))
    made = quantize(model, with_scheme(QuantSpec(), "fp8"), data)
    onnx.checker.check_model(ir.to_proto(made.model), full_check=True)
    x = next(iter(data)).inputs
    assert 20 < sqnr_db(OnnxRunner(model).run(x)["y"], OnnxRunner(made.model, optimize=False).run(x)["y"]) < 60
    stored = [v.const_value for v in made.model.graph.initializers.values() if v.dtype == ir.DataType.FLOAT8E4M3FN]
    assert sorted(tensor.size for tensor in stored if tensor is not None and tensor.size > 64) == [256, 512, 512]
    assert {row["precision"] for row in made.report["layers"]} == {"fp8"}


def test_fp8_weights_are_the_nearest_numbers(graph: Graph, normal: Normal) -> None:
    """Per channel the largest weight lies on 448, and every weight on the next number of E4M3."""
    values = arrays()
    made = quantize(graph(_NET, values), with_scheme(QuantSpec(), "fp8"), normal(4, (1, 6, 16)))
    made_here = (str(value.name) for node in made.model.graph for value in node.outputs)
    name = next(name for name in made_here if name.startswith("a_") and name.endswith("fp8_out"))
    runner = OnnxRunner(made.model, outputs=[name], optimize=False)  # its fusions take FP8 for integers
    (found,) = runner.run(next(iter(normal(1, (1, 6, 16)))).inputs).values()
    scales = np.abs(values["a"]).max(axis=0) / np.float32(448)
    expected = (values["a"] / scales).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scales
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("scheme", list(SHORT_FLOATS))
def test_what_is_named_stays(graph: Graph, normal: Normal, scheme: str) -> None:
    model = graph(_NET, arrays())
    node = next(str(node.name) for node in model.graph if node.outputs[0].name == "t")
    made = quantize(model, with_scheme(QuantSpec(), scheme), normal(4, (1, 6, 16)), keep_float=[node])
    rows = {row["name"]: row for row in made.report["layers"]}
    assert (rows[node]["precision"], rows[node]["reason"]) == (
        "float32",
        "asked for" if scheme == "fp8" else "it was asked for",
    )
    with pytest.raises(QuantizeError, match="cannot leave a layer alone"):
        quantize(model, with_scheme(QuantSpec(), scheme), normal(4, (1, 6, 16)), keep_float=["nobody"])


@pytest.mark.parametrize(
    ("target", "device", "scheme", "message"),
    [
        ("cpu", "x86-64-v3", "fp16", "slower than float32 itself"),
        ("cpu", "raspberrypi5", "fp8", "no FP8 kernels"),
        ("tensorrt", "t4", "bf16", "found compute capability 7.5 (SM75); expected 8 or later"),
        ("tensorrt", "rtx-3060", "fp8", "found compute capability 8.6 (SM86); expected 8.9 or later"),
        ("coreml", "iphone-15-pro", "bf16", "no such quantization scheme"),
    ],
)
def test_targets_that_lack_them_refuse(target: str, device: str, scheme: str, message: str) -> None:
    with pytest.raises(TargetError) as error:
        find_target(target).quantization(scheme, find_device(device, target))
    assert message in str(error.value)


def test_nan_in_the_samples_is_named(graph: Graph, dataset: Callable[..., Dataset]) -> None:
    data = dataset([{"x": np.full((1, 6, 16), np.nan, np.float32)}])
    with pytest.raises(QuantizeError, match="calibration data is not finite"):
        quantize(graph(_NET, arrays()), with_scheme(QuantSpec(), "fp16"), data)
