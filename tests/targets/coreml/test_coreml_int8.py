"""QDQ graphs: weights stay integers in the package, activations go through quantize and dequantize."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewise.quantize import quantize
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.data import random_data
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.tensors import TensorSpec
from edgewise.targets import NodeSupport, TargetError
from edgewise.targets.base import BuildResult, Executor
from edgewise.targets.coreml import TARGET
from edgewise.targets.devices import DeviceProfile, parse_profile

RNG = np.random.default_rng(5)
BuildModel = Callable[..., tuple[Executor, BuildResult, Path]]
CHANNELS = 64


def weights(axis_dim: int, dtype: Any = np.int8, zero: bool = False) -> list[Any]:
    """A quantized weight [64, 64, 3, 3] with a scale per output channel."""
    low, high = ((-8, 8) if dtype == ml_dtypes.int4 else (0, 256)) if dtype != np.int8 else (-127, 128)
    data = RNG.integers(low, high, (CHANNELS, CHANNELS, 3, 3)).astype(dtype)
    scale = RNG.uniform(0.001, 0.002, axis_dim).astype(np.float32)
    offset = np.full(axis_dim, 120 if zero else 0, dtype)
    if axis_dim == 1:
        scale, offset = scale.reshape(()), offset.reshape(())
    return [
        numpy_helper.from_array(data, "w"),
        numpy_helper.from_array(scale, "w_scale"),
        numpy_helper.from_array(offset, "w_zero"),
    ]


def conv_net(initializers: list[Any], activations: Any = None, opset: int = 21, channels: int = CHANNELS) -> ir.Model:
    """x → (Q → DQ) → Conv with DQ weights and int32 DQ bias → Relu → y."""
    nodes, x = [], "x"
    extra = list(initializers)
    if activations is not None:
        extra += [
            numpy_helper.from_array(np.float32(0.02), "x_scale"),
            numpy_helper.from_array(activations(3 if activations is np.uint8 else 0), "x_zero"),
        ]
        nodes += [
            helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["xq"], name="quantize_x"),
            helper.make_node("DequantizeLinear", ["xq", "x_scale", "x_zero"], ["xd"], name="dequantize_x"),
        ]
        x = "xd"
    extra += [
        numpy_helper.from_array(RNG.integers(-500, 500, CHANNELS).astype(np.int32), "b"),
        numpy_helper.from_array(np.full(CHANNELS, 1e-3, np.float32), "b_scale"),
        numpy_helper.from_array(np.zeros(CHANNELS, np.int32), "b_zero"),
    ]
    nodes += [
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["wd"], name="dequantize_w", axis=0),
        helper.make_node("DequantizeLinear", ["b", "b_scale", "b_zero"], ["bd"], name="dequantize_b", axis=0),
        helper.make_node("Conv", [x, "wd", "bd"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"], name="relu"),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 8, 8]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "qdq", ports[:1], ports[1:], extra)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10))


def sqnr_db(model: ir.Model, executor: Executor) -> float:
    inputs = {"x": RNG.standard_normal((1, CHANNELS, 8, 8)).astype(np.float32)}
    reference = OnnxRunner(model, optimize=False).run(inputs)
    return compare_outputs([reference], [executor.run(inputs)])[0].sqnr_db


def weight_bytes(folder: Path) -> int:
    return (folder / "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin").stat().st_size


def form_of(result: BuildResult, op: str = "conv") -> str:
    return next(layer["weights"] for layer in result.layers if layer["op"] == op)


HEADER_BYTES = 64  # of the file and of each tensor in it; the tensors begin at multiples of it
ELEMENTS = CHANNELS * CHANNELS * 9


@pytest.mark.parametrize("channels", [1, CHANNELS])
@pytest.mark.parametrize("activations", [np.int8, np.uint8])
def test_integers_stay_integers(build_model: BuildModel, channels: int, activations: Any) -> None:
    model = conv_net(weights(channels), activations)
    executor, result, folder = build_model(model)
    assert sqnr_db(model, executor) >= 50
    assert form_of(result) == "int8 (constexpr_affine_dequantize)"
    assert weight_bytes(folder) < 1.1 * ELEMENTS
    kinds = [(layer["op"], layer["precision"]) for layer in result.layers]
    assert ("quantize", np.dtype(activations).name) in kinds
    assert ("dequantize", "float16") in kinds


def test_the_float_package_is_larger(build_model: BuildModel) -> None:
    """What the test above would see if a pass folded the integers back."""
    model = conv_net(weights(1))
    kernel = RNG.standard_normal((CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
    wide = ir.Value(name="kernel", const_value=ir.tensor(kernel, name="kernel"))
    model.graph.register_initializer(wide)
    next(node for node in model.graph if node.name == "conv").replace_input_with(1, wide)
    _, result, folder = build_model(model)
    assert form_of(result) == "float16"
    assert weight_bytes(folder) > 1.9 * ELEMENTS


def test_float32_computes_what_onnx_runtime_computes(build_model: BuildModel) -> None:
    model = conv_net(weights(CHANNELS), np.int8)
    executor, _, _ = build_model(model, compute_precision="float32")
    assert sqnr_db(model, executor) >= 90


def test_unsigned_weights_with_a_zero_point(build_model: BuildModel) -> None:
    model = conv_net(weights(CHANNELS, np.uint8, zero=True))
    executor, result, _ = build_model(model)
    assert form_of(result) == "uint8 (constexpr_affine_dequantize)"
    assert sqnr_db(model, executor) >= 50


@pytest.mark.parametrize(
    ("target", "op"), [("iOS16", "constexpr_affine_dequantize"), ("iOS18", "constexpr_blockwise_shift_scale")]
)
def test_weights_alone_by_deployment_target(build_model: BuildModel, target: str, op: str) -> None:
    model = conv_net(weights(CHANNELS))
    executor, result, folder = build_model(model, minimum_deployment_target=target)
    assert form_of(result) == f"int8 ({op})"
    assert weight_bytes(folder) <= ELEMENTS + 2 * 2 * CHANNELS + 4 * HEADER_BYTES, (
        "weights, scales and biases: one zero point for all channels has no tensor of its own"
    )
    assert sqnr_db(model, executor) >= 50


def test_four_bits_take_half_the_room(build_model: BuildModel) -> None:
    model = conv_net(weights(CHANNELS, ml_dtypes.int4))
    executor, result, folder = build_model(model, minimum_deployment_target="iOS18")
    assert form_of(result) == "int4 (constexpr_blockwise_shift_scale)"
    assert weight_bytes(folder) < 0.6 * ELEMENTS
    assert sqnr_db(model, executor) >= 50


def linear_net(block: int = 0, transpose: bool = False) -> ir.Model:
    """x → MatMul by an integer weight [64, 96], perhaps in blocks along the inputs, perhaps stored transposed → y."""
    shape = (96, 64) if transpose else (64, 96)
    scale_shape = (64 // block, 96) if block else (96,)
    attributes = {"axis": 0, "block_size": block} if block else {"axis": 0 if transpose else 1}
    arrays = {
        "w": RNG.integers(-127, 128, shape).astype(np.int8),
        "w_scale": RNG.uniform(0.001, 0.002, scale_shape).astype(np.float32),
    }
    nodes = [helper.make_node("DequantizeLinear", ["w", "w_scale"], ["wd"], name="dequantize_w", **attributes)]
    if transpose:
        nodes.append(helper.make_node("Transpose", ["wd"], ["wt"], name="transpose_w", perm=[1, 0]))
    nodes.append(helper.make_node("MatMul", ["x", "wt" if transpose else "wd"], ["y"], name="matmul"))
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 5, dim]) for name, dim in (("x", 64), ("y", 96))
    ]
    initializers = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "linear", ports[:1], ports[1:], initializers)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))


@pytest.mark.parametrize(
    ("options", "block", "transpose"),
    [({}, 0, False), ({}, 0, True), ({"minimum_deployment_target": "iOS18"}, 16, False)],
)
def test_linear_layers(build_model: BuildModel, options: dict[str, Any], block: int, transpose: bool) -> None:
    model = linear_net(block, transpose)
    executor, result, folder = build_model(model, **options)
    assert form_of(result, "linear").startswith("int8")
    assert weight_bytes(folder) < 1.5 * 64 * 96
    inputs = {"x": RNG.standard_normal((2, 5, 64)).astype(np.float32)}
    reference = OnnxRunner(model, optimize=False).run(inputs)
    assert compare_outputs([reference], [executor.run(inputs)])[0].sqnr_db >= 50


def test_the_scheme_is_what_the_quantizer_makes(
    build_model: BuildModel, iphone: DeviceProfile, small_graph: Any
) -> None:
    spec = TARGET.quantization("int8", iphone)
    assert (spec.activation_dtype, spec.activation_symmetric, spec.one_sided) == ("uint8", True, True)
    assert (spec.per_channel, spec.quantize_bias) == (True, False)
    model = small_graph("conv_net")
    data = random_data([TensorSpec("x", "float32", (1, 3, 16, 16))], 8)
    made = quantize(model, spec, data, allow_random=True).model
    assert all(entry.taken for entry in TARGET.support(made, iphone))
    executor, result, _ = build_model(made)
    forms = {layer["name"]: layer["weights"] for layer in result.layers if layer["op"] in ("conv", "linear")}
    assert forms and all(form.startswith("int8") for form in forms.values())
    samples = [dict(sample.inputs) for sample in data]
    reference = [OnnxRunner(made, optimize=False).run(sample) for sample in samples]
    # Float16 rounds to the neighbouring integer now and then.
    assert compare_outputs(reference, [executor.run(sample) for sample in samples])[0].sqnr_db >= 35


def older(target: str) -> DeviceProfile:
    return parse_profile(
        "older", f'summary = "older"\ntargets = ["coreml"]\n[coreml]\nminimum_deployment_target = "{target}"\n'
    )


def refused(model: ir.Model, device: DeviceProfile) -> list[NodeSupport]:
    return [entry for entry in TARGET.support(model, device) if not entry.taken]


def test_older_targets_say_what_they_lack(build_model: BuildModel) -> None:
    assert [entry.node for entry in refused(conv_net(weights(1), np.int8), older("iOS16"))] == [
        "quantize_x",
        "dequantize_x",
    ]
    assert [entry.node for entry in refused(conv_net(weights(1)), older("iOS15"))] == ["dequantize_w"]
    (entry,) = refused(linear_net(block=16), older("iOS17"))
    assert "iOS18" in entry.reason
    with pytest.raises(TargetError, match="quantized activations from iOS 17 on") as caught:
        build_model(conv_net(weights(1), np.int8), device=older("iOS16"))
    assert "quantize_x" in caught.value.where
    with pytest.raises(TargetError, match="iOS17 or later"):
        TARGET.quantization("int8", older("iOS16"))
