"""OnnxRunner: against onnx's reference evaluator, with intermediate outputs, and its refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from edgewise.runtime.errors import RunError
from edgewise.runtime.onnx_file import to_bytes, write_onnx
from edgewise.runtime.onnx_runner import OnnxRunner

TEXT = """
<ir_version: 8, opset_import: ["" : 18]>
net (float[N, 3, H, W] x) => (float[N, 4, H, W] y, float[N, 4, 1, 1] z)
<float[4, 3, 1, 1] w = {1,2,3,4,5,6,7,8,9,10,11,-12}>
{
   a = Conv (x, w)
   b = Relu (a)
   c = Sigmoid (b)
   y = Mul (b, c)
   z = GlobalAveragePool (y)
}
"""


@pytest.fixture(scope="module")
def proto() -> onnx.ModelProto:
    return onnx.parser.parse_model(TEXT)


@settings(max_examples=15)
@given(
    shape=st.tuples(st.integers(1, 3), st.just(3), st.integers(1, 5), st.integers(1, 5)),
    optimize=st.booleans(),
    seed=st.integers(0, 99),
)
def test_agrees_with_the_reference_on_every_tensor(shape, optimize, seed):
    proto = onnx.parser.parse_model(TEXT)
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    names = ["b", "a", "z", "x", "w"]
    runner = OnnxRunner(ir.from_proto(proto), outputs=names, threads=1, optimize=optimize)
    got = runner.run({"x": x})
    assert list(got) == names
    wide = onnx.ModelProto.FromString(proto.SerializeToString())
    wide.graph.output.extend(onnx.ValueInfoProto(name=name) for name in ("a", "b"))
    want = dict(zip(["y", "z", "a", "b"], ReferenceEvaluator(wide).run(None, {"x": x}), strict=True))
    for name in ("a", "b", "z"):
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(got["x"], x)
    np.testing.assert_array_equal(got["w"].ravel()[-1], -12)


def test_the_model_is_not_changed(proto):
    model = ir.from_proto(proto)
    before = to_bytes(model, "test")
    OnnxRunner(model, outputs=["a"], threads=1)
    assert to_bytes(model, "test") == before


def test_runs_a_file_and_tells_what_it_takes(proto, tmp_path: Path):
    write_onnx(ir.from_proto(proto), tmp_path / "net.onnx")
    runner = OnnxRunner(tmp_path / "net.onnx", threads=1)
    assert [(spec.name, spec.dtype, spec.shape) for spec in runner.inputs] == [("x", "float32", ("N", 3, "H", "W"))]
    assert [spec.name for spec in runner.outputs] == ["y", "z"]
    assert runner.run({"x": np.ones((2, 3, 2, 2), np.float32)})["z"].shape == (2, 4, 1, 1)


@pytest.mark.parametrize(("told", "threads", "taken"), [("1", 0, 1), ("1", 2, 2), ("all", 0, 0), ("", 0, 0)])
def test_threads_are_those_of_the_numerical_libraries_beside_it(proto, monkeypatch, told, threads, taken):
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    session = OnnxRunner(ir.from_proto(proto), threads=threads)._session
    assert session.get_session_options().intra_op_num_threads == taken


def test_an_unknown_tensor_is_named(proto):
    with pytest.raises(RunError, match="no tensor 'nowhere'"):
        OnnxRunner(ir.from_proto(proto), outputs=["a", "nowhere"])


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, r"found no inputs; expected x"),
        ({"x": np.ones((1, 3, 2, 2), np.float32), "q": np.ones(1)}, r"found q, x; expected x"),
        ({"x": np.ones((1, 3, 2, 2))}, r"tensor\(double\).*expected inputs that fit x float32\[N, 3, H, W\]"),
        ({"x": np.ones((1, 5, 2, 2), np.float32)}, r"Got: 5 Expected: 3"),
    ],
)
def test_inputs_that_do_not_fit(proto, inputs, says):
    runner = OnnxRunner(ir.from_proto(proto), threads=1)
    with pytest.raises(RunError, match=says):
        runner.run(inputs)


def test_a_model_that_onnx_runtime_refuses(proto):
    text = TEXT.replace("Sigmoid", "NoSuchOperator")
    with pytest.raises(RunError, match=r"ONNX Runtime refuses the model.*NoSuchOperator"):
        OnnxRunner(ir.from_proto(onnx.parser.parse_model(text)))


def test_a_file_that_is_not_onnx(tmp_path: Path):
    (tmp_path / "net.onnx").write_text("<html>Not found</html>")
    with pytest.raises(RunError, match=r"net\.onnx.*expected an ONNX file"):
        OnnxRunner(tmp_path / "net.onnx")


def test_an_output_that_is_a_sequence():
    text = """
    <ir_version: 8, opset_import: ["" : 18]>
    net (float[4] x) => (seq(float[M]) s)
    <int64[2] parts = {2, 2}>
    { s = SplitToSequence (x, parts) }
    """
    runner = OnnxRunner(ir.from_proto(onnx.parser.parse_model(text)), threads=1)
    with pytest.raises(RunError, match=r"output 's' is not a tensor"):
        runner.run({"x": np.zeros(4, np.float32)})
