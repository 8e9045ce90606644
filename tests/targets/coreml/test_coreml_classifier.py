"""Class labels, and dims of a few sizes: what the package says of itself, and that it computes the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets import TargetError
from edgewise.targets.base import BuildResult, Executor
from edgewise.targets.coreml.evaluator.program import EvaluatedProgram
from edgewise.targets.coreml.package import read_spec

BuildModel = Callable[..., tuple[Executor, BuildResult, Path]]
RNG = np.random.default_rng(1)
LABELS = ["tabby cat", "tench", "goldfish", "ramen", "quill"]


def network(rows: int | str = 1, softmax: bool = False) -> ir.Model:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h" if softmax else "y"], name="product")]
    nodes += [helper.make_node("Softmax", ["h"], ["y"], name="softmax")] if softmax else []
    ports = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, width])] for name, width in (("x", 4), ("y", 5))
    ]
    weight = numpy_helper.from_array(RNG.standard_normal((4, 5)).astype(np.float32), "w")
    graph = helper.make_graph(nodes, "g", *ports, [weight])
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


@pytest.fixture
def labels(tmp_path: Path) -> str:
    (tmp_path / "labels.txt").write_text("\n".join(LABELS), encoding="utf-8")
    return str(tmp_path / "labels.txt")


@pytest.mark.parametrize("softmax", [False, True])
def test_a_classifier_names_the_class(softmax: bool, build_model: BuildModel, labels: str) -> None:
    model = network(softmax=softmax)
    executor, result, folder = build_model(model, labels=labels)
    package = folder / "model.mlpackage"
    spec = read_spec(package)
    assert spec.description.predictedFeatureName == "classLabel"
    assert spec.description.predictedProbabilitiesName == "classLabel_probs"
    assert result.settings["classifier"] == {"label": "classLabel", "probabilities": "classLabel_probs", "labels": 5}
    x = {"x": RNG.standard_normal((1, 4)).astype(np.float32)}
    scores = OnnxRunner(model, optimize=False).run(x)
    assert compare_outputs([scores], [executor.run(x)])[0].sqnr_db >= 50, "the network's own output is still there"
    made = EvaluatedProgram(package).run(x)
    assert str(made["classLabel"]) == LABELS[int(np.argmax(scores["y"]))]
    each = made["classLabel_probs"].item()
    assert list(each) == LABELS and sum(each.values()) == pytest.approx(1, abs=2e-3)
    powers = scores["y"] if softmax else np.exp(scores["y"]) / np.exp(scores["y"]).sum()
    assert np.allclose(list(each.values()), powers[0], atol=2e-3)


@pytest.mark.parametrize(
    ("text", "rows", "message"),
    [
        ("a\nb\nc", 1, "a score per label"),
        ("a\nb\nc\nd\ne", "batch", "the batch fixed"),
        ("a\nb\nb\nd\ne", 1, "line 3: 'b' a second time"),
        ("a\n\nc\nd\ne", 1, "line 2: ''"),
        ("", 1, "which is empty"),
        (None, 1, "No such file"),
    ],
)
def test_labels_that_do_not_fit(
    text: str | None, rows: int | str, message: str, build_model: BuildModel, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "labels.txt").write_text(text, encoding="utf-8")
    dims = {"dims": {"batch": {"max": 8}}} if rows == "batch" else {}
    with pytest.raises(TargetError) as caught:
        build_model(network(rows), **dims, labels=str(tmp_path / "labels.txt"))
    assert message in str(caught.value) and "build.options.labels" in caught.value.where


def test_a_dim_of_a_few_sizes(build_model: BuildModel) -> None:
    model = network("batch")
    executor, result, folder = build_model(model, dims={"batch": [4, 1, 2]})
    array = read_spec(folder / "model.mlpackage").description.input[0].type.multiArrayType
    assert [list(shape.shape) for shape in array.enumeratedShapes.shapes] == [[4, 4], [1, 4], [2, 4]]
    assert list(array.shape) == [4, 4], "the first one is the default"
    assert any("one of 4, 1, 2" in note for note in result.notes)
    for rows in (1, 2, 4):
        x = {"x": RNG.standard_normal((rows, 4)).astype(np.float32)}
        assert compare_outputs([OnnxRunner(model).run(x)], [executor.run(x)])[0].sqnr_db >= 50
    with pytest.raises(TargetError, match=r"\[3, 4\]; expected \[4, 4\] or \[1, 4\] or \[2, 4\]"):
        executor.run({"x": np.ones((3, 4), np.float32)})


@pytest.mark.parametrize("target", ["iOS17", "iOS18"])
def test_lists_of_sizes_for_two_inputs_come_with_ios_18(target: str, build_model: BuildModel) -> None:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("a", "b", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "g", ports[:2], ports[2:])
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))
    options = {"minimum_deployment_target": target, "dims": {"batch": [4, 1]}}
    if target == "iOS17":
        with pytest.raises(TargetError, match=r"dims\.batch.*'a' and 'b' have, for iOS 17.*from iOS 18 on"):
            build_model(model, **options)
        return
    executor, _, _ = build_model(model, **options)
    for rows in (1, 4):
        inputs = {name: RNG.standard_normal((rows, 4)).astype(np.float32) for name in "ab"}
        assert compare_outputs([OnnxRunner(model).run(inputs)], [executor.run(inputs)])[0].sqnr_db >= 50
