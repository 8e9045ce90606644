"""Marked tensors: in the engine that TensorRT builds, in the kit for a device, and compared layer by layer where an engine tells them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgewise.runtime.onnx_file import to_bytes
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets import Executor, TargetError
from edgewise.targets.tensorrt import TARGET
from edgewise.targets.tensorrt.marking import find_marked, give_out
from edgewise.targets.tensorrt.prepare import prepare
from edgewise.targets.tensorrt.vendor import parse
from edgewise.verbs import layers as per_layer
from edgewise.verbs.opened import SourceOptions


def test_marked_tensors_are_written_by_the_engine(small_graph: Any, make_bundle: Any) -> None:
    """By the builder's own listing."""

    def block(**options: Any) -> tuple[int, Any, Any]:
        bundle, result = make_bundle(
            TARGET, small_graph("transformer_block"), options=options, name=f"with_{len(options)}"
        )
        listed = json.loads((bundle.path / "layers.json").read_text())
        parts = {"up_node", "erf_node", "gelu_node"}
        return sum(len(layer["writes"]) for layer in listed if parts & set(layer["nodes"])), result, bundle

    fused, plain, _ = block()
    marked, result, bundle = block(marked_tensors=["up", "s*"])
    assert (fused, plain.settings["marked"]) == (1, []) and marked == 2
    assert {"up", "scores", "scaled", "sum1"} == set(result.settings["marked"])
    assert any(note.startswith("4 tensors are marked.") for note in result.notes)
    assert result.proof["products"] == {"float16": 8}
    assert [spec.name for spec in bundle.outputs] == ["y"]
    executor = TARGET.executor(bundle)
    assert isinstance(executor, Executor)
    x = {"x": np.random.default_rng(0).standard_normal((1, 12, 32)).astype(np.float32)}
    assert list(executor.run(x)) == ["y"], "an app gets what the network gives"


def test_everything_inside_can_be_marked(small_graph: Any) -> None:
    model = small_graph("conv_net")
    names = find_marked(model, ["*"])
    assert "relu1" in names and "y" not in names, "outputs are given out anyhow"
    prepared = prepare(model, "float16").model
    assert give_out(prepared, names) == list(names)
    network = parse(to_bytes(prepared, "g")).network
    assert network.num_outputs == 1 + len(names)


def test_a_mark_that_fits_nothing_is_refused(small_graph: Any, make_bundle: Any) -> None:
    for pattern in ("relu9", 3):
        with pytest.raises(TargetError, match=f"no tensor to mark .*marked_tensors.*found {pattern!r}; expected names"):
            make_bundle(TARGET, small_graph("conv_net"), options={"marked_tensors": ["relu1", pattern]})


def test_the_kit_for_a_device_names_them(small_graph: Any, make_bundle: Any) -> None:
    bundle, result = make_bundle(
        TARGET, small_graph("conv_net"), device="jetson-agx-orin", options={"marked_tensors": ["relu?"]}
    )
    assert json.loads((bundle.path / "build_settings.json").read_text())["marked"] == ["relu1", "relu2"]
    assert result.settings["marked"] == ["relu1", "relu2"]


@pytest.mark.parametrize("wrong", [False, True])
def test_what_an_engine_tells_is_compared_layer_by_layer(
    wrong: bool, small_graph: Any, make_bundle: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """The engine on its GPU is a stand-in: it computes the bundle's graph, or something else from one tensor on."""
    model = small_graph("conv_net")
    (tmp_path / "m.onnx").write_bytes(to_bytes(model, "m"))
    bundle, _ = make_bundle(TARGET, model, options={"marked_tensors": ["relu1", "sum"]})

    class Engine:
        outputs = bundle.outputs

        def inner_names(self) -> list[str]:
            return list(bundle.manifest["engine"]["settings"]["marked"])

        def inner(self, inputs: dict[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
            told = OnnxRunner(model, outputs=names).run(inputs)
            return {
                name: (-array if wrong and name == "sum" else array.astype(np.float16)) for name, array in told.items()
            }

        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return OnnxRunner(model).run(inputs)

    monkeypatch.setattr(per_layer, "load", lambda path: Engine())
    x = {"x": np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)}
    told = per_layer.compare_layers(bundle, tmp_path / "m.onnx", SourceOptions(), x, None)
    assert [layer["name"] for layer in told["layers"]] == ["relu1", "sum", "y"]
    assert (told["first_diverging"] or {}).get("name") == ("sum" if wrong else None)


def test_an_engine_without_marks_says_what_to_build(
    small_graph: Any, make_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, _ = make_bundle(TARGET, small_graph("conv_net"))
    monkeypatch.setattr(per_layer, "load", lambda path: SimpleNamespace(inner_names=list))
    with pytest.raises(Exception, match=r"cannot compare layer by layer.*build\.options\.marked_tensors"):
        per_layer.compare_layers(bundle, bundle.file("model.onnx"), SourceOptions(), {}, None)
