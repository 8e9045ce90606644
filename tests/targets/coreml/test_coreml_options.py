"""Options, names, inputs and outputs: what the recipe can say, and what becomes of ONNX's interface."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.errors import RunError
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.preprocess import Preprocess
from edgewise.targets import TargetError
from edgewise.targets.base import BuildResult, Executor

RNG = np.random.default_rng(3)
BuildModel = Callable[..., tuple[Executor, BuildResult, Path]]
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def model_of(
    nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, Any] | None = None
) -> ir.Model:
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()]
    infos = [[helper.make_tensor_value_info(*entry) for entry in ports] for ports in (inputs, outputs)]
    graph = helper.make_graph(nodes, "g", *infos, initializers)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


def linear_model(rows: int | str = 2) -> ir.Model:
    weight = RNG.standard_normal((4, 5)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node("Softmax", ["h"], ["y"], name="softmax"),
    ]
    return model_of(nodes, [("x", FLOAT, [rows, 4])], [("y", FLOAT, [rows, 5])], {"w": weight})


def check(model: ir.Model, executor: Executor, inputs: dict[str, Any], sqnr_db: float = 50) -> dict[str, np.ndarray]:
    found = executor.run(inputs)
    reference = OnnxRunner(model, optimize=False).run(inputs)
    assert all(parity.sqnr_db >= sqnr_db for parity in compare_outputs([reference], [found]))
    assert {name: array.dtype for name, array in found.items()} == {
        name: array.dtype for name, array in reference.items()
    }
    return found


def precisions(result: BuildResult) -> dict[str, str]:
    return {layer["op"]: layer["precision"] for layer in result.layers}


def test_precision_of_each_operation_is_read_back(build_model: BuildModel) -> None:
    _, half, _ = build_model(linear_model())
    assert precisions(half)["linear"] == precisions(half)["softmax"] == "float16"
    assert half.notes == []
    _, full, _ = build_model(linear_model(), compute_precision="float32")
    assert set(precisions(full).values()) == {"float32"}


@pytest.mark.parametrize("kept", ["softmax", "y"])
def test_what_is_kept_in_float32_is_said(build_model: BuildModel, kept: str) -> None:
    model = linear_model()
    executor, result, _ = build_model(model, keep_float32=[kept])
    assert precisions(result)["linear"] == "float16"
    assert precisions(result)["softmax"] == "float32"
    assert any("1 softmax" in note for note in result.notes)
    check(model, executor, {"x": RNG.standard_normal((2, 4)).astype(np.float32)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "float16"}, "'precision'"),
        ({"compute_precision": "int8"}, "compute_precision = 'int8'"),
        ({"minimum_deployment_target": "iOS14"}, "iOS15 or iOS16"),
        ({"keep_float32": ["no_such_thing"]}, "'no_such_thing'"),
        ({"keep_float32": [1]}, "a list of names"),
        ({"image_inputs": True}, "image_inputs"),
        ({"image_inputs": ["x"]}, "no preprocessing in the recipe"),
        ({"dims": {"batch": 0}}, "a number above 0"),
        ({"dims": {"batch": {"min": 4, "max": 2}}}, "1 <= min <= default <= max"),
        ({"dims": {"batch": {"most": 2}}}, "1 <= min <= default <= max"),
        ({"dims": {"batch": {"max": "many"}}}, "1 <= min <= default <= max"),
        ({"dims": {"sequence": 3}}, "one of the symbolic dims (batch)"),
    ],
)
def test_wrong_options_are_refused(build_model: BuildModel, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TargetError) as caught:
        build_model(linear_model("batch"), **options)
    assert message in str(caught.value)
    assert caught.value.where and caught.value.expected and caught.value.fix


def spec_of(folder: Path) -> Any:
    from edgewise.targets.coreml.package import read_spec

    return read_spec(folder / "model.mlpackage")


def test_symbolic_dims_become_ranges(build_model: BuildModel) -> None:
    model = linear_model("batch")
    executor, result, folder = build_model(model, dims={"batch": {"min": 2, "max": 8, "default": 4}})
    (port,) = spec_of(folder).description.input
    sizes = port.type.multiArrayType.shapeRange.sizeRanges
    assert [(size.lowerBound, size.upperBound) for size in sizes] == [(2, 8), (4, 4)]
    assert list(port.type.multiArrayType.shape) == [4, 4]
    told = next(note for note in result.notes if "'batch' is flexible, 2 to 8" in note)
    assert "several times slower" in told and "build.options.dims.batch" in told
    for rows in (2, 8):
        check(model, executor, {"x": RNG.standard_normal((rows, 4)).astype(np.float32)})
    for rows in (1, 9):
        with pytest.raises(TargetError, match=rf"input 'x'.*\[{rows}, 4\]; expected \[2 to 8, 4\]"):
            executor.run({"x": np.ones((rows, 4), np.float32)})


def test_a_batch_is_fixed_unless_it_is_asked_for(build_model: BuildModel) -> None:
    executor, result, folder = build_model(linear_model("batch"))
    array = spec_of(folder).description.input[0].type.multiArrayType
    assert list(array.shape) == [1, 4] and not array.HasField("shapeRange")
    assert result.dims == {"batch": 1}
    with pytest.raises(TargetError, match=r"\[2, 4\]; expected \[1, 4\]"):
        executor.run({"x": np.ones((2, 4), np.float32)})
    assert [note for note in result.notes if "'batch' is fixed at 1" in note and "build.options.dims.batch" in note]


def test_a_number_fixes_a_symbolic_dim(build_model: BuildModel) -> None:
    model = linear_model("batch")
    executor, result, folder = build_model(model, dims={"batch": 3})
    (port,) = spec_of(folder).description.input
    assert list(port.type.multiArrayType.shape) == [3, 4]
    assert not port.type.multiArrayType.HasField("shapeRange")
    assert result.notes == []
    check(model, executor, {"x": RNG.standard_normal((3, 4)).astype(np.float32)})


@pytest.mark.parametrize(
    ("steps", "space"),
    [
        ("color=bgr,scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225", "BGR"),
        ("color=rgb,scale=127.5,mean=1:1:1,std=1:1:1", "RGB"),
        ("color=gray,scale=255,mean=0.5,std=0.25", "GRAYSCALE"),
    ],
    ids=["bgr", "rgb", "gray"],
)
def test_images_take_the_preprocessing_into_the_network(build_model: BuildModel, steps: str, space: str) -> None:
    preprocess = Preprocess.parse(steps)
    channels = len(preprocess.mean)
    weight = RNG.standard_normal((4, channels, 3, 3)).astype(np.float32)
    shapes = [("x", FLOAT, [1, channels, 8, 8])], [("y", FLOAT, [1, 4, 6, 6])]
    model = model_of([helper.make_node("Conv", ["x", "w"], ["y"], name="conv")], *shapes, {"w": weight})
    executor, result, folder = build_model(model, preprocess.to_json(), image_inputs=["x"], compute_precision="float32")
    image = spec_of(folder).description.input[0].type.imageType
    assert (image.width, image.height) == (8, 8)
    assert image.ColorSpace.Name(image.colorSpace) == space
    assert result.settings["inputs"][0]["image"]["color"] == preprocess.color
    pixels = RNG.integers(0, 256, (1, channels, 8, 8)).astype(np.float32)
    mean, std = (np.reshape(values, (1, channels, 1, 1)) for values in (preprocess.mean, preprocess.std))
    check(model, executor, {"x": ((pixels / preprocess.scale - mean) / std).astype(np.float32)}, 90)


@pytest.mark.parametrize(
    ("names", "shape", "message"),
    [(["z"], [1, 3, 8, 8], "no such input"), (["x"], [1, 4, 8, 8], "float32 [1, 3, height, width]")],
)
def test_what_is_no_image_is_refused(build_model: BuildModel, names: list[str], shape: list[int], message: str) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    model = model_of([node], [("x", FLOAT, shape)], [("y", FLOAT, shape)])
    with pytest.raises(TargetError) as caught:
        build_model(model, Preprocess().to_json(), image_inputs=names)
    assert message in str(caught.value)


def interface_model() -> ir.Model:
    """Awkward names and dtypes: what Core ML has no room for must come back as ONNX has it."""
    nodes = [
        helper.make_node("Add", ["1x.y", "tensor"], ["out/1"], name="add"),
        helper.make_node("Identity", ["1x.y"], ["copy"], name="identity"),
        helper.make_node("Identity", ["out/1"], ["out.1"], name="again"),
        helper.make_node("Greater", ["1x.y", "tensor"], ["is more"], name="more"),
        helper.make_node("Add", ["ids", "ids"], ["twice"], name="double"),
        helper.make_node("Mul", ["scale", "scale"], ["square"], name="square"),
        helper.make_node("And", ["flag", "is more"], ["both"], name="and"),
    ]
    inputs = [
        ("1x.y", FLOAT, [2, 3]),
        ("tensor", FLOAT, [2, 3]),
        ("ids", INT64, [4]),
        ("scale", FLOAT, []),
        ("flag", BOOL, [2, 3]),
    ]
    outputs = [
        ("out/1", FLOAT, [2, 3]), ("copy", FLOAT, [2, 3]), ("out.1", FLOAT, [2, 3]), ("is more", BOOL, [2, 3]),
        ("twice", INT64, [4]), ("square", FLOAT, []), ("both", BOOL, [2, 3]), ("fixed", FLOAT, [2]), ("ids", INT64, [4]),
    ]  # fmt: skip
    return model_of(nodes, inputs, outputs, {"fixed": np.float32([1.5, 2])})


@pytest.mark.parametrize("precision", ["float16", "float32"])
@pytest.mark.parametrize("target", ["iOS15", "iOS17", "iOS26"])
def test_names_dtypes_and_scalars_come_back(build_model: BuildModel, precision: str, target: str) -> None:
    model = interface_model()
    executor, result, folder = build_model(model, compute_precision=precision, minimum_deployment_target=target)
    description = spec_of(folder).description
    for kind, ports in (("inputs", description.input), ("outputs", description.output)):
        settings = result.settings[kind]
        assert [entry["coreml"] for entry in settings] == [port.name for port in ports]
        assert all(port.name.isidentifier() for port in ports)
        assert [entry["name"] for entry in settings] == [value.name for value in getattr(model.graph, kind)]
    # A float16 boundary would round what the app passes: the package's own ports stay in float32.
    assert {
        port.type.multiArrayType.ArrayDataType.Name(port.type.multiArrayType.dataType) for port in description.output
    } == {"FLOAT32", "INT32"}
    assert any("int64 is int32" in note for note in result.notes)
    inputs = {
        "1x.y": RNG.standard_normal((2, 3)).astype(np.float32),
        "tensor": RNG.standard_normal((2, 3)).astype(np.float32),
        "ids": np.array([1, -2, 3, 70000]),
        "scale": np.array(1.25, np.float32),
        "flag": RNG.integers(0, 2, (2, 3)).astype(bool),
    }
    check(model, executor, inputs)
    with pytest.raises(RunError, match="3000000000"):
        executor.run(inputs | {"ids": np.array([1, 2, 3, 3_000_000_000])})


def test_bytes_as_input(build_model: BuildModel) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["f"], to=FLOAT), helper.make_node("Sqrt", ["f"], ["y"])]
    model = model_of(nodes, [("x", TensorProto.UINT8, [2, 3])], [("y", FLOAT, [2, 3])])
    executor, _, _ = build_model(model)
    check(model, executor, {"x": RNG.integers(0, 256, (2, 3)).astype(np.uint8)})


def test_masks_at_the_border_of_float32_do_not_become_nan(build_model: BuildModel) -> None:
    """(1 - mask) × -3.4e38, as transformers write it: in float16 that would be 0 × -inf."""
    lowest = np.finfo(np.float32).min
    nodes = [
        helper.make_node("Mul", ["mask", "lowest"], ["bias"]),
        helper.make_node("Add", ["x", "bias"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["y"]),
    ]
    ports = [("x", FLOAT, [2, 4]), ("mask", FLOAT, [2, 4])]
    model = model_of(nodes, ports, [("y", FLOAT, [2, 4])], {"lowest": np.float32(lowest)})
    executor, result, _ = build_model(model)
    mask = np.float32([[0, 0, 1, 1], [0, 1, 0, 1]])
    check(model, executor, {"x": RNG.standard_normal((2, 4)).astype(np.float32), "mask": mask})
    assert any("65504" in note for note in result.notes)


def test_numbers_beyond_float16_keep_their_operation_in_float32(build_model: BuildModel) -> None:
    node = helper.make_node("Add", ["x", "large"], ["y"])
    model = model_of([node], [("x", FLOAT, [3])], [("y", FLOAT, [3])], {"large": np.float32([1e5, 1, 2])})
    executor, result, _ = build_model(model)
    assert any("float32, not float16: 1 add" in note for note in result.notes)
    check(model, executor, {"x": np.float32([3e4, 1, 2])})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_the_same_bytes_also_after_a_failed_build(build_model: BuildModel) -> None:
    model = interface_model()
    first = contents(build_model(model)[2])
    broken = model_of([helper.make_node("Det", ["x"], ["y"])], [("x", FLOAT, [2, 2])], [("y", FLOAT, [])])
    with pytest.raises(TargetError):
        build_model(broken)
    assert contents(build_model(model)[2]) == first
    other = contents(build_model(model, compute_precision="float32")[2])
    assert other["model.mlpackage/Manifest.json"] != first["model.mlpackage/Manifest.json"]


def test_old_models_that_list_initializers_as_inputs(build_model: BuildModel) -> None:
    plain = linear_model()
    proto = ir.to_proto(plain)
    proto.graph.input.append(helper.make_tensor_value_info("w", FLOAT, [4, 5]))
    model = ir.from_proto(onnx.ModelProto.FromString(proto.SerializeToString()))
    executor, result, _ = build_model(model)
    assert [entry["name"] for entry in result.settings["inputs"]] == ["x"]
    check(plain, executor, {"x": RNG.standard_normal((2, 4)).astype(np.float32)})


def test_operations_keep_the_names_of_their_tensors(build_model: BuildModel) -> None:
    model = linear_model()
    model.graph.outputs.append(model.graph.node("product").outputs[0])
    model.graph.outputs[1].dtype = ir.DataType.FLOAT
    _, result, _ = build_model(model)
    named = [(layer["op"], layer["name"]) for layer in result.layers if layer["op"] != "cast"]
    assert named == [("linear", "h_1"), ("softmax", "y_1")], "h and y themselves are the casts to float32"


@pytest.mark.parametrize("letters", ["abc", "xyz"])
def test_names_that_passes_make_up_leave_no_trace(build_model: BuildModel, letters: str) -> None:
    from edgewise.targets.coreml.names import MARK
    from edgewise.targets.coreml.renaming import rename_values

    function = spec_of(build_model(linear_model())[2]).mlProgram.functions["main"]
    expected = function.SerializeToString(deterministic=True)
    block = function.block_specializations[function.opset]
    random = np.random.default_rng(ord(letters[0]))
    made_up = {"x": "x", "y": "y", "h": f"{MARK}h_cast_fp16", "y_1": f"{MARK}y_cast_fp16"}
    for op in block.operations:
        op.attributes["name"].immediateValue.tensor.strings.values[:] = ["anything"]
        for output in op.outputs:
            output.name = made_up.setdefault(output.name, "".join(random.choice(list(letters), 20)))
        for argument in op.inputs.values():
            for binding in argument.arguments:
                binding.name = made_up[binding.name]
    assert function.SerializeToString(deterministic=True) != expected
    rename_values(function)
    assert function.SerializeToString(deterministic=True) == expected


BUILD_BLOCKS = """
import sys
from pathlib import Path
import onnx_ir as ir
from edgewise.targets.base import BuildRequest
from edgewise.targets.coreml import TARGET
from edgewise.targets.devices import find_device
TARGET.build(BuildRequest(ir.load(sys.argv[1]), Path(sys.argv[2]), find_device("iphone-15-pro", "coreml")))
"""


@pytest.mark.slow
def test_the_same_bytes_in_every_process(build_model: BuildModel, tmp_path: Path) -> None:
    """Passes of coremltools walk over sets of objects, whose order changes with the process."""
    constants: dict[str, Any] = {
        "gamma": np.ones(8, np.float32),
        "w": RNG.standard_normal((8, 8, 1, 1)).astype(np.float32),
    }
    nodes, x = [], "x"
    for block in range(6):
        parts = [f"{name}{block}" for name in ("turned", "normal", "back", "mixed", "sum")]
        nodes += [
            helper.make_node("Transpose", [x], [parts[0]], perm=[0, 2, 3, 1]),
            helper.make_node("LayerNormalization", [parts[0], "gamma"], [parts[1]]),
            helper.make_node("Transpose", [parts[1]], [parts[2]], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", [parts[2], "w"], [parts[3]]),
            helper.make_node("Add", [x, parts[3]], [parts[4]]),
        ]
        x = parts[4]
    nodes.append(helper.make_node("Relu", [x], ["y"]))
    shape = [1, 8, 4, 4]
    ir.save(model_of(nodes, [("x", FLOAT, shape)], [("y", FLOAT, shape)], constants), tmp_path / "blocks.onnx")
    other = tmp_path / "other"
    other.mkdir()
    command = [sys.executable, "-c", BUILD_BLOCKS, str(tmp_path / "blocks.onnx"), str(other)]
    subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": "1"}, check=True, capture_output=True, text=True)
    assert contents(build_model(ir.load(tmp_path / "blocks.onnx"))[2]) == contents(other)
