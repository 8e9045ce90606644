"""Whole networks through the native engine, beside ONNX Runtime node by node: trained ones, and timm's with random weights."""

from __future__ import annotations

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
from edgewise.targets.nodes import tensor_spec

ROOT = Path(__file__).resolve().parents[4]
FLOAT_DB = 90
# With the size of the image, and the least signal to noise in int8: of random weights, where each rounding tips others.
TIMM = {
    "mobilenetv2_100": (224, 15),
    "mobilenetv4_conv_small": (224, 25),
    "deit_tiny_patch16_224": (224, 30),
    "convnext_tiny": (224, 30),
    "swin_tiny_patch4_window7_224": (224, 30),
    "repvit_m1_1": (224, 25),
    "fastvit_t8": (256, 30),
    "efficientvit_m4": (224, 30),
    "shvit_s1": (224, 30),
    "resnet50": (224, 30),
}


def int8(model: ir.Model) -> ir.Model:
    data = random_data([tensor_spec(value) for value in model.graph.inputs], 2, seed=0)
    spec = TARGET.quantization("int8", find_device("x86-64-v4-vnni", "cpu"))
    # Without samples: how well weights are rounded is not what engines are compared in.
    return quantize(model, spec, data, method="minmax", rounding="squant", samples=2, allow_random=True).model


@pytest.fixture
def check(sample: Any, run_native: Any, run_onnx: Any, worst_db: Any) -> Callable[..., None]:
    """Compare a model in float and quantized."""

    def compare(model: ir.Model, int8_db: float) -> None:
        inputs = sample(model, 2)
        assert worst_db(run_onnx(model, inputs), run_native(model, inputs)) > FLOAT_DB
        quantized = int8(model)
        assert worst_db(run_onnx(quantized, inputs), run_native(quantized, inputs)) > int8_db

    return compare


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn", "vit"])
def test_digits(name: str, check: Callable[..., None]) -> None:
    arch = {"cnn": "DigitsCNN", "vit": "DigitsViT"}[name]
    folder = ROOT / "examples" / "digits"
    exported = export(
        folder / f"{name}.pth",
        arch=f"{folder}/model.py:{arch}",
        inputs=[TensorSpec.parse("image=f32[N,1,8,8]")],
        verify=False,
    )
    check(exported.model, 25)


@pytest.mark.shared
@pytest.mark.slow
def test_trained_networks(trained: Any, check: Callable[..., None]) -> None:
    check(trained.model, 25)


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str, check: Callable[..., None], timm_graph: Callable[..., ir.Model]) -> None:
    size, least = TIMM[name]
    check(timm_graph(name, size), least)


@pytest.mark.slow
def test_minilm_with_any_batch_and_sequence(
    sentence_encoder: tuple[Path, ir.Model], run_native: Any, run_onnx: Any, worst_db: Any
) -> None:
    _, model = sentence_encoder
    random = np.random.default_rng(0)
    for batch, tokens in ((1, 1), (3, 17), (2, 64)):
        mask = np.ones((batch, tokens), np.int64)
        mask[0, tokens // 2 + 1 :] = 0
        inputs = {"input_ids": random.integers(0, 30000, (batch, tokens)), "attention_mask": mask}
        inputs["token_type_ids"] = np.zeros((batch, tokens), np.int64)
        assert worst_db(run_onnx(model, inputs), run_native(model, inputs)) > FLOAT_DB
