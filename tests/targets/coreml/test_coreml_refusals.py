"""What Core ML does not take: the same answer from support and build, with node, operator and attribute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewise.targets import TargetError
from edgewise.targets.coreml import TARGET
from edgewise.targets.devices import DeviceProfile

F, I64, F64, F8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.DOUBLE, TensorProto.FLOAT8E4M3FN
Const = np.ndarray


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def f32(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


# Operator, inputs (a constant, or dtype and shape), attributes, opset, what the message must name.
REFUSED: list[tuple[str, list[Any], dict[str, Any], int, tuple[str, ...]]] = [
    ("Det", [(F, [2, 2])], {}, 18, ("Det", "without a row")),
    ("Cast", [(F, [2, 2])], {"to": F8}, 19, ("float8_e4m3fn", "output")),
    ("Add", [(TensorProto.UINT32, [2]), np.array([2**31, 1], np.uint32)], {}, 18, (str(2**31), "32 bits", "input B")),
    ("Add", [(I64, [2]), ints(2**40, 1)], {}, 18, (str(2**40), "32 bits", "input B")),
    ("ReduceSum", [(F, [1, 2, 1, 2, 1, 2])], {}, 18, ("rank 6", "rank up to 5")),
    ("MatMul", [(F, [1, 2, 1, 2, 1, 2]), f32(2, 1, 1, 1, 2, 3)], {}, 18, ("rank 6", "input A")),
    ("TopK", [(F, [2, 9]), (I64, [1])], {}, 18, ("input K", "run time", "constant")),
    ("Reshape", [(F, [2, "n", "m"]), ints(0, 0, 1, 1, 1, -1)], {}, 18, ("rank 6",)),
    ("Conv", [(F, [1, 2, 5, 5, 5, 5]), f32(2, 2, 1, 1, 1, 1)], {}, 18, ("rank 6",)),
    ("ConvTranspose", [(F, [1, 2, "h", "w"]), f32(2, 2, 3, 3)], {"auto_pad": "SAME_UPPER"}, 18, ("auto_pad", "fixed spatial sizes")),
    ("Conv", [(F, [1, 2, 5, 5]), (F, [2, 2, 3, 3])], {"dilations": [2, 2]}, 18, ("input W", "dilations")),
    ("ConvTranspose", [(F, [1, 2, "h", 5]), f32(2, 2, 3, 3)], {"output_shape": [9, 9]}, 18, ("fixed spatial sizes",)),
    ("MaxPool", [(F, [1, 2, "h", 9])], {"kernel_shape": [3, 3], "dilations": [2, 2]}, 18, ("dilations", "fixed shapes")),
    ("MaxPool", [(F, [1, 2, 99, 99])], {"kernel_shape": [33, 33], "dilations": [2, 2]}, 18, ("1089 elements", "kernel_shape")),
    ("MaxPool", [(F, [1, 2, "h", 9])], {"kernel_shape": [3, 3], "ceil_mode": 1, "pads": [0, 0, 1, 1]}, 18, ("ceil_mode",)),
    ("AveragePool", [(F, [1, 2, "h", 9])], {"kernel_shape": [3, 3], "ceil_mode": 1, "pads": [1, 1, 1, 1], "count_include_pad": 1}, 18, ("ceil_mode",)),
    ("Resize", [(F, [1, 2, 4, 4]), None, (F, [4])], {}, 18, ("scales", "run time")),
    ("Resize", [(F, [1, 2, "h", 4]), None, np.float32([1, 1, 1.5, 1])], {"mode": "cubic"}, 18, ("run time", "fixed")),
    ("Resize", [(F, [1, 2, "h", 4]), f32(8), f32(4)], {"coordinate_transformation_mode": "tf_crop_and_resize"}, 18, ("cropped", "fixed shapes")),
    ("RoiAlign", [(F, [1, 2, 9, 9]), (F, [3, 4]), (I64, [3])], {"mode": "max"}, 18, ("maximum of as many points", "sampling_ratio")),
    ("RoiAlign", [(F, [1, 2, "h", 9]), (F, [3, 4]), (I64, [3])], {}, 18, ("sizes known at run time", "fixed shapes")),
    ("Pad", [(F, [3, "n"]), ints(0, 1, 0, 0)], {"mode": "edge"}, 18, ("mode edge",)),
    ("Einsum", [(F, [2, 3]), (F, [1, 3, 4])], {"equation": "...i,...ij->...j"}, 18, ("two sizes", "Expand")),
    ("Einsum", [(F, [2, 3, 4]), (F, [5, 6, 7]), (F, [2, 5])], {"equation": "abc,def,ad->bcef"}, 18, ("rank 6 in between",)),
    ("BatchNormalization", [(F, [1, 2, 3]), (F, [2]), f32(2), f32(2), f32(2)], {}, 18, ("input 1", "constants")),
    ("LRN", [(F, [1, 4, 3, 3])], {"size": 4}, 18, ("size 4", "odd")),
    ("ArgMax", [(F, [2, "n"])], {"select_last_index": 1, "axis": 1}, 18, ("select_last_index",)),
    ("Gather", [(F, [3, "n"]), ints(-1)], {"axis": 1}, 18, ("negative index",)),
    ("GridSample", [(F, [1, 2, "n", 4]), (F, [1, 3, 3, 2])], {"mode": "cubic"}, 20, ("sizes known at run time", "fixed shapes")),
    ("LSTM", [(F, [3, 1, 2]), f32(1, 8, 2), f32(1, 8, 2)], {"hidden_size": 2, "clip": 1.0}, 18, ("clip",)),
    ("LSTM", [(F, [3, 1, 2]), f32(1, 8, 2), f32(1, 8, 2)], {"hidden_size": 2, "activations": ["Relu", "Tanh", "Tanh"]}, 18, ("Relu", "activations")),
    ("LSTM", [(F, [3, 1, 2]), np.nan * f32(1, 8, 2), f32(1, 8, 2)], {"hidden_size": 2}, 18, ("input W", "16 NaN among 16")),
    ("MatMul", [(F, [3, 2]), -np.inf * f32(2, 4)], {}, 18, ("input B", "8 infinite among 8")),
    ("GRU", [(F, [3, 1, 2]), f32(1, 6, 2), np.inf * f32(1, 6, 2)], {"hidden_size": 2}, 18, ("input R", "12 infinite among 12")),
    ("DequantizeLinear", [np.ones((2, 3), np.int8), np.float32(np.inf), np.int8(0)], {}, 18, ("input x_scale", "1 infinite")),
    ("DequantizeLinear", [np.ones((2, 3), np.int8), np.array(np.nan, np.float32), np.int8(0)], {}, 18, ("input x_scale", "1 NaN")),
    ("Slice", [(F, [2, 3]), (I64, [1]), ints(0), ints(1), ints(-1)], {}, 18, ("negative steps",)),
    ("Dropout", [(F, [2, 3]), np.float32(0.5), np.bool_(True)], {}, 18, ("training mode", "training_mode")),
    ("QuantizeLinear", [(F, [2, 3]), np.float32(0), np.int8(0)], {}, 18, ("y_scale", "scales above 0")),
    ("QuantizeLinear", [(F, [1, "n", 4]), f32(1, 1, 2), np.zeros((1, 1, 2), np.int8)], {"axis": 2, "block_size": 2}, 21, ("blocks", "block_size")),
    ("Col2Im", [(F, [1, 4, 9]), ints(4, 4), ints(2, 2)], {"pads": [-1, 0, 1, 0]}, 18, ("negative pads",)),
    ("Softmax", [(F, [2, "n", 3])], {"axis": 1}, 11, ("axis", "opset 13")),
]  # fmt: skip


def model_of(op: str, given: list[Any], attributes: dict[str, Any], opset: int, domain: str = "") -> ir.Model:
    inputs, initializers, names = [], [], []
    for index, item in enumerate(given):
        names.append("" if item is None else f"in{index}")
        if isinstance(item, tuple):
            inputs.append(helper.make_tensor_value_info(names[-1], *item))
        elif item is not None:
            initializers.append(numpy_helper.from_array(np.asarray(item), names[-1]))
    node = helper.make_node(op, names, ["mid"], name="the_node", domain=domain, **attributes)
    last = helper.make_node("Identity", ["mid"], ["y"], name="last")
    graph = helper.make_graph([node, last], "g", inputs, [helper.make_empty_tensor_value_info("y")], initializers)
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=8 if opset < 21 else 10))


@pytest.mark.parametrize(
    ("op", "given", "attributes", "opset", "parts"), REFUSED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_support_says_why_not(
    iphone: DeviceProfile, op: str, given: list[Any], attributes: dict[str, Any], opset: int, parts: tuple[str, ...]
) -> None:
    entry = TARGET.support(model_of(op, given, attributes, opset), iphone)[0]
    assert (entry.node, entry.op, entry.taken) == ("the_node", op, False)
    for part in parts:
        assert part in f"{entry.op} {entry.reason}"


@pytest.mark.parametrize("case", REFUSED, ids=[f"{case[0]}-{index}" for index, case in enumerate(REFUSED)])
def test_build_refuses_with_the_same_reason(case: Any, iphone: DeviceProfile, build_model: Callable[..., Any]) -> None:
    op, given, attributes, opset, _parts = case
    model = model_of(op, given, attributes, opset)
    value = model.graph.outputs[0]
    value.dtype, value.shape = ir.DataType.FLOAT, ir.Shape([1])
    reason = TARGET.support(model, iphone)[0].reason
    with pytest.raises(TargetError) as caught:
        build_model(model)
    error = caught.value
    assert "'the_node'" in error.where and op in error.where
    assert error.found in reason and error.expected in reason and error.fix in reason
    assert all((error.what, error.where, error.found, error.expected, error.fix))


def test_other_domains_are_refused(iphone: DeviceProfile) -> None:
    entry = TARGET.support(model_of("FusedMatMul", [(F, [2, 2]), (F, [2, 2])], {}, 18, "com.microsoft"), iphone)[0]
    assert entry.op == "com.microsoft::FusedMatMul"
    assert "'com.microsoft'" in entry.reason and "without runtime-specific fusions" in entry.reason


def test_a_near_name_is_suggested(iphone: DeviceProfile) -> None:
    entry = TARGET.support(model_of("ThresholdedRelux", [(F, [2, 2])], {}, 18), iphone)[0]
    assert "nearest one taken is ThresholdedRelu" in entry.reason


@pytest.mark.parametrize(
    ("dtype", "shape", "message"),
    [
        (TensorProto.COMPLEX64, [2], "complex64"),
        (F, [1] * 6, "rank 6"),
        (TensorProto.STRING, [2], "string"),
        (F, None, "an unknown rank"),
    ],
)
def test_inputs_that_core_ml_does_not_have(
    build_model: Callable[..., Any], dtype: int, shape: list[int] | None, message: str
) -> None:
    with pytest.raises(TargetError) as caught:
        build_model(model_of("Identity", [(dtype, shape)], {}, 18))
    assert message in caught.value.found and "input" in caught.value.where
    assert caught.value.expected and caught.value.fix


def test_a_rank_known_at_run_time_only(iphone: DeviceProfile, build_model: Callable[..., Any]) -> None:
    model = model_of("Reshape", [(F, [2, 3]), (I64, ["k"])], {}, 18)
    entry = TARGET.support(model, iphone)[0]
    assert not entry.taken and "an output of unknown rank" in entry.reason and "fixed shapes" in entry.reason
    with pytest.raises(TargetError, match=r"'the_node'.*an output of unknown rank.*fixed shapes"):
        build_model(model)


def function_model() -> ir.Model:
    """A call of a model's own function, whose body holds an operator that Core ML lacks."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    body = [helper.make_node("Exp", ["a"], ["b"]), helper.make_node("Det", ["b"], ["c"])]
    function = helper.make_function("own", "Inside", ["a"], ["c"], body, opsets[:1])
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node("Inside", ["r"], ["y"], name="call", domain="own"),
    ]
    ports = [helper.make_tensor_value_info("x", F, [2, 2])], [helper.make_tensor_value_info("y", F, [])]
    graph = helper.make_graph(nodes, "g", *ports)
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=8))


def test_what_is_inside_a_function_is_laid_on_its_call(iphone: DeviceProfile) -> None:
    relu, call = TARGET.support(function_model(), iphone)
    assert relu.taken
    assert not call.taken and "without a row" in call.reason


def test_folded_nodes_are_taken(iphone: DeviceProfile) -> None:
    """Shape arithmetic on fixed shapes, in float64 even, is nothing that Core ML sees."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], name="shape"),
        helper.make_node("Cast", ["s"], ["d"], name="wide", to=F64),
        helper.make_node("Cast", ["d"], ["i"], name="back", to=I64),
        helper.make_node("Reshape", ["x", "i"], ["y"], name="reshape"),
    ]
    ports = [helper.make_tensor_value_info(name, F, [2, 3]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:])
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))
    assert [(entry.node, entry.taken) for entry in TARGET.support(model, iphone)] == [
        (name, True) for name in ("shape", "wide", "back", "reshape")
    ]
