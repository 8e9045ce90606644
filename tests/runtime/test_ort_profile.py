"""ONNX Runtime's profile read: on made-up events with known answers, and on real ones of every kind of kernel."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from edgewise.runtime.engines import RunOptions
from edgewise.runtime.engines.onnxruntime import OnnxRuntimeEngine
from edgewise.runtime.ort_profile import NodeRecord, node_macs, read_profile


def node(name: str, op: str, ts: int, dur: int, provider: str = "CPUExecutionProvider", **args) -> dict:
    shapes = {"input_type_shape": [{"float": [2, 3]}], "output_type_shape": [{"float": [2, 4]}]}
    return {
        "cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur,
        "args": {"op_name": op, "provider": provider, "node_index": "0", **shapes, **args},
    }  # fmt: skip


def run(ts: int, dur: int) -> dict:
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": dur, "args": {}}


def test_the_first_run_is_left_out_and_the_median_taken():
    events = []
    for index, took in enumerate([900, 10, 30, 20]):
        start = 1000 * index
        events += [
            node("a", "Relu", start, took),
            node("b", "MatMul", start + took, 5, "CUDAExecutionProvider"),
            run(start, 990),
        ]
    records = read_profile(events)
    assert [(r.name, r.op, r.unit, r.median_ms, len(r.run_us)) for r in records] == [
        ("a", "Relu", "cpu", 0.02, 3),
        ("b", "MatMul", "cuda", 0.005, 3),
    ]
    assert records[0].inputs == [(2, 3)]
    assert records[0].outputs == [(2, 4)]


def test_a_single_run_is_kept():
    assert read_profile([node("a", "Relu", 0, 7), run(0, 10)])[0].run_us == [7]
    assert read_profile([]) == []
    assert read_profile([run(0, 10)]) == []


def test_a_loop_does_not_count_its_body_twice():
    events = [
        node("loop", "Loop", 0, 100),
        node("body", "Relu", 10, 30),
        node("body", "Relu", 50, 30),
        node("after", "Relu", 100, 5, node_index="9"),
        run(0, 110),
    ]
    assert [(r.name, r.run_us) for r in read_profile(events)] == [("loop", [40]), ("body", [60]), ("after", [5])]


def test_nodes_without_a_name_are_told_apart():
    events = [node("", "Relu", 0, 3, node_index="4"), node("", "Relu", 4, 5, node_index="6"), run(0, 10)]
    assert [r.name for r in read_profile(events)] == ["Relu_4", "Relu_6"]


@pytest.mark.parametrize(
    ("op", "inputs", "outputs", "macs"),
    [
        ("Conv", [(1, 3, 8, 8), (4, 3, 3, 3)], [(1, 4, 6, 6)], 4 * 36 * 27),
        ("Conv", [(1, 8, 8, 8), (8, 1, 3, 3), (8,)], [(1, 8, 6, 6)], 8 * 36 * 9),
        ("Conv", [(1, 3, 8, 8)], [(1, 4, 6, 6)], None),
        ("QLinearConv", [(1, 8, 8, 3), (), (), (4, 3, 3, 3), (4,)], [(1, 8, 8, 4)], 4 * 64 * 27),
        ("ConvTranspose", [(1, 4, 5, 5), (4, 2, 3, 3)], [(1, 2, 11, 11)], 4 * 25 * 18),
        ("MatMul", [(2, 5, 7), (7, 3)], [(2, 5, 3)], 2 * 5 * 3 * 7),
        ("MatMul", [(2, 7)], [(2, 3)], 42),
        ("Gemm", [(7, 2), (3, 7)], [(2, 3)], 42),
        ("Gemm", [(2, 7)], [(2, 3)], 42),
        ("QGemm", [(2, 7)], [(2, 3)], 42),
        ("Relu", [(2, 7)], [(2, 7)], None),
        ("MatMul", [], [], None),
        ("Gemm", [(0, 7)], [(0, 3)], 0),
    ],
)
def test_multiply_accumulates(op, inputs, outputs, macs):
    assert node_macs(NodeRecord("n", op, "CPU", inputs, outputs), None) == macs


def quantized_net() -> onnx.ModelProto:
    """Convolution and linear layer between Q and DQ, whose kernels pack their weights away."""
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 18]>
    net (float[N, 16, 8, 8] x) => (float[N, 5] y)
    <float s = {0.05}, uint8 z = {128}, int8 zw = {0}>
    {
       xq = QuantizeLinear (x, s, z)  xd = DequantizeLinear (xq, s, z)
       wd = DequantizeLinear (w, s, zw)
       a = Conv <pads=[1,1,1,1]> (xd, wd)
       aq = QuantizeLinear (a, s, z)  ad = DequantizeLinear (aq, s, z)
       g = Flatten (ad)
       gq = QuantizeLinear (g, s, z)  gd = DequantizeLinear (gq, s, z)
       fd = DequantizeLinear (f, s, zw)
       m = MatMul (gd, fd)
       mq = QuantizeLinear (m, s, z)  y = DequantizeLinear (mq, s, z)
    }
    """)
    generator = np.random.default_rng(0)
    for name, shape in (("w", (16, 16, 3, 3)), ("f", (1024, 5))):
        values = generator.integers(-100, 100, shape, dtype=np.int8)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def test_packed_weights_are_counted_all_the_same(tmp_path: Path):
    onnx.save(quantized_net(), tmp_path / "model.onnx")
    engine = OnnxRuntimeEngine(tmp_path / "model.onnx", ["CPUExecutionProvider"], RunOptions(threads=1, per_layer=True))
    for _ in range(3):
        engine.run({"x": np.ones((2, 16, 8, 8), np.float32)})
    macs = {layer.op: layer.detail["macs"] for layer in engine.layer_times()}
    assert macs["QLinearConv"] == 2 * 64 * 16 * 16 * 9
    assert macs["QLinearMatMul"] == 2 * 1024 * 5
    assert macs["QuantizeLinear"] is None


def test_a_real_loop(tmp_path: Path):
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 18]>
    net (float[4] x) => (float[4] y)
    <int64 trips = {5}, bool keep = {1}>
    {
       y = Loop (trips, keep, x) <body = b (int64 i, bool c, float[4] v) => (bool d, float[4] w) {
          d = Identity (c)  w = Sin (v)
       }>
    }
    """)
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "p")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for _ in range(2):
        session.run(None, {"x": np.ones(4, np.float32)})
    events = json.loads(Path(session.end_profiling()).read_text())
    records = {record.op: record for record in read_profile(events)}
    assert {"Loop", "Sin"} <= set(records)
    runs = [event["dur"] for event in events if event["name"] == "model_run"]
    assert sum(sum(record.run_us) for record in records.values()) <= runs[1]
