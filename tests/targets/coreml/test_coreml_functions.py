"""Packages of several functions: each computes its own graph, and what they share lies in the weight file once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewise.runtime.bundle import load_reference
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets import TargetError
from edgewise.targets.base import BuildResult, Executor
from edgewise.targets.coreml.package import WEIGHTS, read_spec

BuildModel = Callable[..., tuple[Executor, BuildResult, Path]]
WIDTH, CLASSES = 64, 48
RNG = np.random.default_rng(8)
SHARED = RNG.standard_normal((WIDTH, WIDTH)).astype(np.float32)
OWN = {"tokens": RNG.standard_normal((WIDTH, CLASSES)).astype(np.float32), "image": SHARED}
BOTH = {"decode": {"dims": {"rows": 1}}, "prompt": {"dims": {"rows": 8}}}


def network(kind: str = "tokens", rows: int | str = "rows") -> ir.Model:
    """relu(x · shared) · own: another graph of this kind shares the first product's weight."""
    nodes = [
        helper.make_node("MatMul", [kind, "shared"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("MatMul", ["b", "own"], ["y"], name="second"),
    ]
    ports = [[(kind, [rows, WIDTH])], [("y", [rows, OWN[kind].shape[1]])]]
    infos = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in side] for side in ports]
    constants = {"shared": SHARED, "own": OWN[kind]}
    stored = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "network", *infos, stored)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


def weight_bytes(folder: Path) -> int:
    return (folder / "model.mlpackage" / WEIGHTS).stat().st_size


def least_db(model: ir.Model, run: Callable[..., Any], inputs: dict[str, np.ndarray]) -> float:
    want = OnnxRunner(model, optimize=False).run(inputs)
    return min(parity.sqnr_db for parity in compare_outputs([want], [run(inputs)]))


def rows(count: int, name: str = "tokens") -> dict[str, np.ndarray]:
    return {name: np.random.default_rng(count).standard_normal((count, WIDTH)).astype(np.float32)}


def test_two_sizes_of_one_network(build_model: BuildModel) -> None:
    model = network()
    _, _, alone = build_model(model, minimum_deployment_target="iOS18", dims={"rows": 1})
    executor, result, folder = build_model(model, minimum_deployment_target="iOS18", functions=BOTH)
    description = read_spec(folder / "model.mlpackage").description
    assert [function.name for function in description.functions] == ["decode", "prompt"]
    assert description.defaultFunctionName == "decode"
    assert weight_bytes(folder) == weight_bytes(alone)
    assert least_db(model, executor.run, rows(1)) >= 50
    assert list(executor.functions) == ["prompt"]
    assert least_db(model, executor.functions["prompt"], rows(8)) >= 50
    assert result.dims == {"rows": 1}
    (entry,) = result.functions
    assert (entry["name"], entry["inputs"][0]["shape"]) == ("prompt", [8, WIDTH])
    assert {layer["function"] for layer in result.layers} == {"decode", "prompt"}
    samples, references = load_reference(folder / entry["reference"])
    assert min(p.sqnr_db for p in compare_outputs(references, [executor.functions["prompt"](s) for s in samples])) >= 50


def test_two_graphs_share_what_they_have_in_common(build_model: BuildModel, tmp_path: Path) -> None:
    first, second = network(), network("image", 3)
    ir.save(second, tmp_path / "image.onnx")
    functions = {"text": {"dims": {"rows": 2}}, "image": {"model": str(tmp_path / "image.onnx")}}
    executor, result, folder = build_model(first, minimum_deployment_target="iOS18", functions=functions)
    # The image's two weights are one matrix, the first product's: nothing is added to what the text needs.
    _, _, alone = build_model(first, minimum_deployment_target="iOS18", dims={"rows": 2})
    assert weight_bytes(folder) == weight_bytes(alone)
    assert least_db(first, executor.run, rows(2)) >= 50
    assert least_db(second, executor.functions["image"], rows(3, "image")) >= 50
    assert result.functions[0]["outputs"][0]["shape"] == [3, WIDTH]


def test_other_weights_are_added(build_model: BuildModel, tmp_path: Path) -> None:
    other = network("image", 3)
    other.graph.initializers["own"].const_value = ir.tensor(SHARED + 1)
    ir.save(other, tmp_path / "image.onnx")
    functions = {"text": {"dims": {"rows": 2}}, "image": {"model": str(tmp_path / "image.onnx")}}
    _, _, folder = build_model(network(), minimum_deployment_target="iOS18", functions=functions)
    _, _, alone = build_model(network(), minimum_deployment_target="iOS18", dims={"rows": 2})
    assert weight_bytes(folder) >= weight_bytes(alone) + 2 * WIDTH * WIDTH


def test_compressed_weights_stay_compressed(build_model: BuildModel) -> None:
    model = network()
    for name in ("shared", "own"):
        value = model.graph.initializers[name]
        value.const_value = ir.tensor(np.round(value.const_value.numpy() * 2).clip(-7, 7) / 2)
    executor, result, folder = build_model(model, minimum_deployment_target="iOS18", functions=BOTH)
    forms = {layer["weights"] for layer in result.layers if "weights" in layer}
    assert forms == {"uint4 palette (constexpr_lut_to_dense)"}
    assert weight_bytes(folder) < 0.6 * WIDTH * (WIDTH + CLASSES) + 2048
    assert least_db(model, executor.functions["prompt"], rows(8)) >= 50


def test_the_same_bytes_again(build_model: BuildModel) -> None:
    made = [build_model(network(), minimum_deployment_target="iOS18", functions=BOTH)[2] for _ in range(2)]
    contents = [
        {f.relative_to(d): f.read_bytes() for f in d.rglob("*") if f.suffix in (".mlmodel", ".bin", ".json")}
        for d in made
    ]
    assert contents[0] == contents[1] and len(contents[0]) == 3


@pytest.mark.parametrize(
    ("target", "functions", "key", "message"),
    [
        ("iOS17", BOTH, "functions", "iOS18 or later"),
        ("iOS18", {"2nd": None}, "functions.2nd", "a letter, then"),
        ("iOS18", {"a": {"size": 1}}, "functions.a", "dims, states, model"),
        ("iOS18", {"a": {"dims": 1}}, "functions.a", "dims, states, model"),
        ("iOS18", {"a": {"states": {"x": 1}}}, "functions.a.states", "each name once"),
        ("iOS18", {"a": {"dims": {"rows": 0}}}, "functions.a.dims.rows", "a number above 0"),
        ("iOS18", {"a": {"dims": {"columns": 2}}}, "dims.columns", "symbolic dims (rows)"),
        ("iOS18", {"a": {"model": "other.onnx"}}, "functions.a.model", "the network itself as the first"),
    ],
)
def test_functions_that_do_not_fit(
    target: str, functions: Any, key: str, message: str, build_model: BuildModel
) -> None:
    with pytest.raises(TargetError) as caught:
        build_model(network(), minimum_deployment_target=target, functions=functions)
    assert message in str(caught.value) and f"build.options.{key}" in caught.value.where
