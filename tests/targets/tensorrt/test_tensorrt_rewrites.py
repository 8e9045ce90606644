"""Operators without a kernel are named with the nearest rewrite, and what it needs is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from edgewise.targets import BuildRequest, TargetError, find_device
from edgewise.targets.tensorrt import TARGET
from edgewise.targets.tensorrt.rewrites import REWRITES
from edgewise.targets.tensorrt.vendor import _logger, tensorrt_rtx


@pytest.fixture(scope="module")
def parser() -> Any:
    trt = tensorrt_rtx()
    builder = trt.Builder(_logger())
    network = builder.create_network(0)
    # The parser holds on to neither.
    return trt.OnnxParser(network, _logger()), network, builder


def test_each_rewrite_is_needed_and_can_be_built(parser: Any) -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    for op, (_, needed) in REWRITES.items():
        assert op in known and not parser[0].supports_operator(op), op
        assert needed and all(parser[0].supports_operator(other) for other in needed), op


def test_a_refused_node_is_named_with_its_rewrite(tmp_path: Path) -> None:
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"], name="dynamic")
    outputs = [
        helper.make_tensor_value_info(name, dtype, shape)
        for name, dtype, shape in (
            ("y", TensorProto.UINT8, [1, 4]),
            ("s", TensorProto.FLOAT, []),
            ("z", TensorProto.UINT8, []),
        )
    ]
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])], outputs)
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))
    with pytest.raises(TargetError) as caught:
        TARGET.build(BuildRequest(model, tmp_path, find_device("rtx-4070", "tensorrt")))
    text = str(caught.value)
    assert "node 'dynamic', operator DynamicQuantizeLinear" in text
    assert "the nearest rewrite: QuantizeLinear with a calibrated scale" in text
