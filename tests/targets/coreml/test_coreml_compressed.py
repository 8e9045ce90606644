"""Weights in few bytes: the package computes the very same, and its weight file is as small as it should be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewise.quantize import prune, quantize
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.data import random_data
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.tensors import TensorSpec
from edgewise.targets.base import BuildResult, Executor
from edgewise.targets.coreml import TARGET
from edgewise.targets.coreml.palettes import find_palette
from edgewise.targets.devices import find_device

BuildModel = Callable[..., tuple[Executor, BuildResult, Path]]
RNG = np.random.default_rng(3)
SHAPE = (64, 32, 3, 3)


def palette(entries: int, groups: int = 1, vector: int = 1, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A weight whose output channels take vectors of values from one table per group."""
    rows, rest = shape[0], int(np.prod(shape[1:]))
    tables = RNG.standard_normal((groups, entries, vector)).astype(np.float16).astype(np.float32)
    index = RNG.integers(0, entries, (rows // vector, rest))
    group = np.repeat(np.arange(groups), rows // vector // groups)[:, None]
    return np.ascontiguousarray(tables[group, index].transpose(0, 2, 1).reshape(shape))


def sparse(weight: np.ndarray, share: float) -> np.ndarray:
    """The weight with that share of it zero."""
    return np.where(RNG.random(weight.shape) < share, np.float32(0), weight).astype(np.float32)


def dense() -> np.ndarray:
    return RNG.standard_normal(SHAPE).astype(np.float32)


def conv_net(weight: np.ndarray) -> Any:
    out = list(weight.shape[:1])
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="layer")
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, *size])
        for name, channels, size in (("x", weight.shape[1], (8, 8)), ("y", out[0], (6, 6)))
    ]
    graph = helper.make_graph([node], "net", ports[:1], ports[1:], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def weight_bytes(folder: Path) -> int:
    return (folder / "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin").stat().st_size


# A weight, the oldest target that has the form, the form, and its bytes over those of float32 (4 a weight).
FORMS: dict[str, tuple[Callable[[], np.ndarray], str, str, float]] = {
    "palette4": (lambda: palette(16), "iOS16", "uint4 palette (constexpr_lut_to_dense)", 0.125),
    "palette6": (lambda: palette(50), "iOS17", "uint6 palette (constexpr_lut_to_dense)", 0.1875),
    "palette1": (lambda: palette(2), "iOS16", "uint1 palette (constexpr_lut_to_dense)", 0.03125),
    "palette4 on iOS 18": (lambda: palette(16), "iOS18", "uint4 palette (constexpr_lut_to_dense)", 0.125),
    "palette3": (lambda: palette(7), "iOS18", "uint3 palette (constexpr_lut_to_dense)", 0.09375),
    "palette8": (lambda: palette(256), "iOS18", "uint8 palette (constexpr_lut_to_dense)", 0.25),
    "grouped": (lambda: palette(16, groups=4), "iOS18", "uint4 palette (constexpr_lut_to_dense)", 0.125),
    "vectors": (lambda: palette(64, vector=4), "iOS18", "uint6 palette (constexpr_lut_to_dense)", 0.047),
    "grouped vectors": (lambda: palette(16, groups=2, vector=2), "iOS18", "uint4 palette (constexpr_lut_to_dense)", 0.0625),
    "sparse": (lambda: sparse(dense(), 0.75), "iOS16", "sparse float16 (constexpr_sparse_to_dense)", 0.15625),
    "sparse on iOS 18": (lambda: sparse(dense(), 0.75), "iOS18", "sparse float16 (constexpr_sparse_to_dense)", 0.15625),
    "sparse palette": (lambda: sparse(palette(16), 0.75), "iOS18", "sparse uint4 palette (constexpr_sparse_to_dense)", 0.0625),
    "grouped sparse palette": (
        lambda: sparse(palette(16, groups=4), 0.75), "iOS18", "sparse uint4 palette (constexpr_sparse_to_dense)", 0.0625,
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str, build_model: BuildModel) -> None:
    make, target, stored, share = FORMS[form]
    weight = make()
    model = conv_net(weight)
    executor, result, folder = build_model(model, minimum_deployment_target=target)
    assert [layer["weights"] for layer in result.layers if layer["op"] == "conv"] == [stored]
    assert weight_bytes(folder) <= share * weight.size * 4 * 1.06 + 512
    x = {"x": np.random.default_rng(0).standard_normal((1, SHAPE[1], 8, 8)).astype(np.float32)}
    reference = OnnxRunner(ir.from_proto(model), optimize=False).run(x)
    assert compare_outputs([reference], [executor.run(x)])[0].sqnr_db >= 50
    full, _, _ = build_model(model, minimum_deployment_target=target, compute_precision="float32")
    assert compare_outputs([reference], [full.run(x)])[0].sqnr_db >= 110


# A scheme, the share of zeros, the device, how the weights are stored, and their bytes over those of float32.
SCHEMES = [
    ("w8", 0.0, "iphone-15-pro", "int8 (constexpr_affine_dequantize)", 0.27),
    ("int8", 0.0, "iphone-15-pro", "int8 (constexpr_affine_dequantize)", 0.27),
    ("w8", 0.75, "iphone-16-pro", "sparse int8 (constexpr_sparse_to_dense)", 0.15),
    ("w4", 0.0, "iphone-16-pro", "int4 (constexpr_blockwise_shift_scale)", 0.15),
    ("palette4", 0.0, "iphone-15-pro", "uint4 palette (constexpr_lut_to_dense)", 0.15),
    ("palette4", 0.75, "iphone-16-pro", "sparse uint4 palette (constexpr_sparse_to_dense)", 0.08),
    ("palette4g16", 0.0, "iphone-16-pro", "uint4 palette (constexpr_lut_to_dense)", 0.15),
    ("palette4v2", 0.0, "iphone-16-pro", "uint4 palette (constexpr_lut_to_dense)", 0.08),
    ("palette2", 0.0, "iphone-15-pro", "uint2 palette (constexpr_lut_to_dense)", 0.08),
]


@pytest.mark.parametrize(("scheme", "zeros", "device", "stored", "share"), SCHEMES)
def test_schemes_stay_compressed(
    scheme: str, zeros: float, device: str, stored: str, share: float, build_model: BuildModel
) -> None:
    weight, profile = sparse(dense(), zeros), find_device(device, "coreml")
    data = random_data([TensorSpec("x", "float32", (1, SHAPE[1], 8, 8))], 4)
    spec = TARGET.quantization(scheme, profile)
    model = quantize(ir.from_proto(conv_net(weight)), spec, data, allow_random=True).model
    assert [entry for entry in TARGET.support(model, profile) if not entry.taken] == []
    executor, result, folder = build_model(model, device=profile)
    assert [layer["weights"] for layer in result.layers if layer["op"] == "conv"] == [stored]
    assert weight_bytes(folder) <= share * weight.size * 4
    samples = [dict(sample.inputs) for sample in data]
    reference = [OnnxRunner(model, optimize=False).run(sample) for sample in samples]
    assert compare_outputs(reference, [executor.run(sample) for sample in samples])[0].sqnr_db >= 40


def test_embeddings_lose_bytes_with_their_zeros(build_model: BuildModel) -> None:
    """75 % zeros and int8 in a table that is looked up, as in a layer."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["found"], name="words"),
        helper.make_node("MatMul", ["found", "w"], ["y"], name="layer"),
    ]
    constants = {"table": RNG.standard_normal((2000, 64)), "w": RNG.standard_normal((64, 64))}
    initializers = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [9])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [9, 64])
    graph = helper.make_graph(nodes, "net", [ids], [y], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    device = find_device("iphone-16-pro", "coreml")
    pruned = prune(ir.from_proto(model), pattern="unstructured", sparsity=0.75, tables=True).model
    data = random_data([TensorSpec("ids", "int64", (9,))], 2)
    made = quantize(pruned, TARGET.quantization("w8", device), data, allow_random=True).model
    executor, _, folder = build_model(made, device=device)
    assert weight_bytes(folder) <= 0.15 * 4 * sum(array.size for array in constants.values())
    x = {"ids": RNG.integers(0, 2000, 9)}
    assert compare_outputs([OnnxRunner(made, optimize=False).run(x)], [executor.run(x)])[0].sqnr_db >= 50


def test_integers_of_four_bits_are_stored_as_such(build_model: BuildModel) -> None:
    """Whatever dtype the graph has them in."""
    data = random_data([TensorSpec("x", "float32", (1, SHAPE[1], 8, 8))], 4)
    spec = replace(TARGET.quantization("w4", find_device("iphone-16-pro", "coreml")), weight_dtype="int8")
    model = quantize(ir.from_proto(conv_net(dense())), spec, data, allow_random=True).model
    for target, stored in (("iOS17", "int8"), ("iOS18", "int4")):
        _, result, _ = build_model(model, minimum_deployment_target=target)
        assert [layer["weights"].split()[0] for layer in result.layers if layer["op"] == "conv"] == [stored]


@pytest.mark.parametrize("target", ["iOS15", "iOS18"])
def test_what_stays_dense(target: str, build_model: BuildModel) -> None:
    weight = dense() if target == "iOS18" else palette(16)
    _, result, folder = build_model(conv_net(weight), minimum_deployment_target=target)
    assert [layer["weights"] for layer in result.layers if layer["op"] == "conv"] == ["float16"]
    assert weight_bytes(folder) >= weight.size * 2


@pytest.mark.parametrize(("axis", "groups", "vector"), [(0, 1, 1), (1, 1, 1), (0, 8, 1), (1, 4, 2), (0, 2, 4)])
def test_a_palette_gives_the_same_weight(axis: int, groups: int, vector: int) -> None:
    weight = np.moveaxis(palette(16, groups, vector, (32, 24, 3)), 0, axis)
    found = find_palette(weight, axis, 18, 2)
    assert found is not None and found.axis == axis
    assert found.bits * weight.size / found.vector <= 4 * weight.size / vector, "as small as it was made, or smaller"
    tables = found.table
    for place, dim in enumerate(found.indices.shape):
        tables = np.repeat(tables, dim // tables.shape[place], place)
    picked = np.take_along_axis(tables, found.indices[..., None, None].astype(int), -2)[..., 0, :]
    assert np.array_equal(np.moveaxis(picked, -1, axis + 1).reshape(weight.shape), weight)


def test_weights_of_many_values_have_no_palette() -> None:
    assert find_palette(dense(), 0, 18, 2) is None
    assert find_palette(palette(16, groups=64), 0, 16, 2) is None, "tables per group need iOS 18"
