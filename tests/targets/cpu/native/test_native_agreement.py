"""Quantized networks on libedgewise and in ONNX Runtime, compared in quantization steps (benchmarks/agreement.py)."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.exporter import export
from edgewise.quantize import quantize
from edgewise.runtime.data import random_data
from edgewise.runtime.tensors import TensorSpec
from edgewise.targets import find_device
from edgewise.targets.cpu import TARGET
from edgewise.targets.cpu.native.compile import compile_model
from edgewise.targets.cpu.native.plan import Isa
from edgewise.targets.nodes import tensor_spec

pytestmark = pytest.mark.usefixtures("libedgewise")
ROOT = Path(__file__).resolve().parents[4]
GOAL = 0.999


@pytest.fixture(scope="module")
def script() -> Any:
    """benchmarks/agreement.py."""
    spec = importlib.util.spec_from_file_location("agreement", ROOT / "benchmarks" / "agreement.py")
    assert spec and spec.loader
    sys.modules["agreement"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def int8(model: ir.Model) -> ir.Model:
    data = random_data([tensor_spec(value) for value in model.graph.inputs], 4, seed=0)
    spec = TARGET.quantization("int8", find_device("x86-64-v4-vnni", "cpu"))
    return quantize(model, spec, data, method="minmax", rounding="squant", samples=4, allow_random=True).model


def digits(name: str) -> ir.Model:
    folder = ROOT / "examples" / "digits"
    arch = {"cnn": "DigitsCNN", "vit": "DigitsViT"}[name]
    specs = [TensorSpec.parse("image=f32[1,1,8,8]")]
    return int8(export(folder / f"{name}.pth", arch=f"{folder}/model.py:{arch}", inputs=specs, verify=False).model)


def residual_net(graph_maker: Any, size: int, after: str) -> ir.Model:
    """Two layers whose sum with their input is rounded again; 14x14 pixels leave some over beyond whole vectors."""
    g = graph_maker(size)
    first = g.add("Relu", [g.add("Conv", ["x", g.weights("u", 24, 24, 3, 3)], "a", pads=[1] * 4)], "b")
    second = g.add("Conv", [first, g.weights("v", 24, 24, 1, 1), g.weights("bias", 24)], "c")
    if after:
        second = g.add(after, [second], "d")
    x = g.add("Relu", [g.add("Add", [second, first], "e")], "f")
    g.add("Conv", [x, g.weights("w", 8, 24, 1, 1)], "y")
    return int8(g.model({"x": [1, 24, size, size]}, {"y": [1, 8, size, size]}))


@pytest.mark.parametrize("size", [5, 14, 20])
@pytest.mark.parametrize("after", ["", "Relu"])
def test_a_fused_residual_is_rounded_as_onnx_says(
    size: int, after: str, graph_maker: Any, script: Any, sample: Callable[..., Any]
) -> None:
    model = residual_net(graph_maker, size, after)
    plan = compile_model(model, Isa.AVX512VNNI).plan
    assert sum("inner_scale" in op.attributes for op in plan.ops) == 1
    assert not {"binary", "quantize"} & {op.op for op in plan.ops[1:]}
    found = script.agreement(model, sample(model))
    assert len(found["alone"]) == 3 and all(found.values())
    for rows in found.values():
        assert script.share(rows) == min(row.within for row in rows) == 1
    assert min(row.equal for row in found["whole"]) > GOAL


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("channels", [8, 6])
def test_a_gate_for_each_channel_of_several_images(
    images: int, channels: int, graph_maker: Any, script: Any, sample: Callable[..., Any]
) -> None:
    g = graph_maker(channels)
    x = g.add("Relu", [g.add("Conv", ["x", g.weights("u", channels, 4, 3, 3)], "a", pads=[1] * 4)], "b")
    gate = g.add("Conv", [g.add("GlobalAveragePool", [x], "p"), g.weights("v", channels, channels, 1, 1)], "c")
    x = g.add("Mul", [x, g.add("Sigmoid", [gate], "s")], "m")
    g.add("Conv", [x, g.weights("w", 8, channels, 1, 1)], "y")
    model = int8(g.model({"x": [images, 4, 6, 6]}, {"y": [images, 8, 6, 6]}))
    found = script.agreement(model, sample(model))
    assert script.share(found["alone"]) == script.share(found["outputs"]) == 1


def test_heads_of_a_width_that_is_no_multiple_of_four(
    graph_maker: Any, script: Any, sample: Callable[..., Any]
) -> None:
    """CoaT's have 19 channels: a layer that reads them all finds four channels in two heads."""
    g = graph_maker(3)
    heads = g.add("MatMul", ["x", g.weights("u", 19, 19)], "h")
    turned = g.add("Transpose", [g.add("Relu", [heads], "r")], "t", perm=[0, 2, 1, 3])
    g.constant("shape", np.array([1, 5, 152]))
    g.add("MatMul", [g.add("Reshape", [turned, "shape"], "f"), g.weights("w", 152, 8)], "y")
    model = int8(g.model({"x": [1, 8, 5, 19]}, {"y": [1, 5, 8]}))
    found = script.agreement(model, sample(model))
    assert script.share(found["alone"]) == script.share(found["outputs"]) == 1


def test_attention_over_channels_rounds_its_probabilities(
    graph_maker: Any, script: Any, sample: Callable[..., Any]
) -> None:
    """DaViT's: 49 tokens are no whole words, so that scores and products are computed in float."""
    g = graph_maker(7)
    g.constant("heads", np.int64([1, 49, 2, 32]))
    parts = [g.add("MatMul", ["x", g.weights(f"w{name}", 64, 64)], name) for name in "qkv"]
    q, k, v = (g.add("Reshape", [part, "heads"], f"{part}h") for part in parts)
    q = g.add("Transpose", [g.add("Mul", [q, g.constant("scale", np.float32(0.3))], "qs")], "qt", perm=[0, 2, 3, 1])
    k = g.add("Transpose", [k], "kt", perm=[0, 2, 1, 3])
    v = g.add("Transpose", [v], "vt", perm=[0, 2, 3, 1])
    weights = g.add("Softmax", [g.add("MatMul", [q, k], "s")], "p", axis=-1)
    mixed = g.add("Transpose", [g.add("MatMul", [weights, v], "m")], "mt", perm=[0, 3, 1, 2])
    g.constant("flat", np.int64([1, 49, 64]))
    g.add("MatMul", [g.add("Reshape", [mixed, "flat"], "f"), g.weights("u", 64, 64)], "y")
    model = int8(g.model({"x": [1, 49, 64]}, {"y": [1, 49, 64]}))
    assert any(node.op_type == "QuantizeLinear" and node.inputs[0].name == "p" for node in model.graph)
    found = script.agreement(model, sample(model))["alone"]
    assert min(row.equal for row in found) > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn", "vit"])
def test_digits_networks_agree_tensor_by_tensor(name: str, script: Any, sample: Callable[..., Any]) -> None:
    model = digits(name)
    found = script.agreement(model, sample(model))
    assert len(found["alone"]) > 3
    assert min(row.within for row in found["alone"]) >= GOAL


def test_a_deviation_is_seen(script: Any, monkeypatch: pytest.MonkeyPatch, graph_maker: Any, sample: Any) -> None:
    """The comparison itself: two steps more in one value of a hundred."""
    model = residual_net(graph_maker, 5, "")
    honest = script._native

    def wrong(*arguments: Any) -> Any:
        made = honest(*arguments)
        for name, array in made.items():
            made[name] = array.copy()
            made[name].reshape(-1)[::100] += 2 * max(float(array.max()) / 100, 0.1)
        return made

    monkeypatch.setattr(script, "_native", wrong)
    assert min(row.within for row in script.agreement(model, sample(model))["alone"]) < GOAL


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenetv4_conv_small", "shvit_s1", "repvit_m1_1"])
def test_networks_of_timm_agree_tensor_by_tensor(
    name: str, script: Any, timm_graph: Callable[..., ir.Model], sample: Callable[..., Any]
) -> None:
    model = int8(timm_graph(name, 224))
    found = script.agreement(model, sample(model))
    assert min(row.within for row in found["alone"]) >= GOAL


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize(("name", "whole"), [("resnet20", GOAL), ("squeezenet", 0.99)])
def test_trained_networks_agree_tensor_by_tensor(name: str, whole: float, shared_dir: Path, script: Any) -> None:
    """``whole``: of the outputs, run through; what tips at one rounding tips others after it."""
    found = script.agreement(*script.prepared(name))
    assert min(row.within for row in found["alone"]) >= GOAL
    assert script.share(found["outputs"]) >= whole
