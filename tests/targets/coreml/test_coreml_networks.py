"""Whole networks from PyTorch through the exporter to a package: small ones, and real ones beside the checkout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from edgewise.exporter import export
from edgewise.exporter.torchvision_schemas import make_torchvision_importable
from edgewise.quantize import quantize
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.targets.base import BuildResult, Executor
from edgewise.targets.coreml import TARGET
from edgewise.targets.devices import DeviceProfile

pytestmark = pytest.mark.slow
BuildModel = Callable[..., tuple[Executor, BuildResult, Path]]
EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
CIFAR = "scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225"


def worst_db(references: list[Any], found: list[Any]) -> float:
    return min(parity.sqnr_db for parity in compare_outputs(references, found))


def operations(result: BuildResult) -> Counter[str]:
    return Counter(layer["op"] for layer in result.layers)


@pytest.mark.parametrize(
    ("name", "fused"),
    [
        ("test_resnet", {}),
        ("test_efficientnet", {"silu": 1}),
        ("test_convnext", {"gelu": 1, "layer_norm": 1}),
        ("test_vit", {"gelu": 1, "layer_norm": 1}),
        ("test_mambaout", {"gelu": 1}),
        ("mobilenetv3_small_050", {"sigmoid_hard": 1}),
    ],
)
def test_small_networks(
    name: str, fused: dict[str, int], build_model: BuildModel, tmp_path: Path, iphone: DeviceProfile
) -> None:
    make_torchvision_importable()
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    size = 96  # smaller than usual, for the evaluator is no engine
    network = timm.create_model(name, **({"img_size": size} if "vit" in name else {})).eval()
    shape = (1, 3, size, size)
    program = torch.export.export(network, (torch.zeros(shape),))
    torch.export.save(program, tmp_path / "net.pt2")
    model = export(tmp_path / "net.pt2", verify=False).model
    assert [entry for entry in TARGET.support(model, iphone) if not entry.taken] == []
    inputs = {model.graph.inputs[0].name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    reference = OnnxRunner(model, optimize=False).run(inputs)
    full, result, _ = build_model(model, compute_precision="float32")
    assert worst_db([reference], [full.run(inputs)]) >= 90
    half, result, _ = build_model(model)
    assert worst_db([reference], [half.run(inputs)]) >= 45
    assert {layer["precision"] for layer in result.layers if layer["op"] != "cast"} == {"float16"}
    assert all(operations(result)[op] >= count for op, count in fused.items())
    assert "erf" not in operations(result)


HALF_DB = {"fastestdet": 40}


@pytest.mark.shared
def test_real_networks(trained: Any, build_model: BuildModel, iphone: DeviceProfile) -> None:
    assert [entry for entry in TARGET.support(trained.model, iphone) if not entry.taken] == []
    for precision, sqnr_db in (("float32", 90.0), ("float16", HALF_DB.get(trained.name, 50))):
        executor, result, _ = build_model(trained.model, compute_precision=precision)
        assert worst_db(trained.references, [executor.run(sample) for sample in trained.samples]) >= sqnr_db
        assert {layer["precision"] for layer in result.layers} - {"int32"} <= {
            precision,
            "float32" if precision == "float16" else precision,
        }


@pytest.mark.shared
def test_real_networks_in_int8(trained: Any, build_model: BuildModel, iphone: DeviceProfile) -> None:
    spec = TARGET.quantization("int8", iphone)
    model = quantize(trained.model, spec, trained.calib, samples=8, rounding="squant").model  # not how well, but what
    assert [entry for entry in TARGET.support(model, iphone) if not entry.taken] == []
    executor, result, folder = build_model(model)
    weights = (folder / "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin").stat().st_size
    assert weights < 0.62 * elements(trained.model) * 2, "a float16 package has two bytes an element"
    assert all(
        layer.get("weights", "int8").startswith("int8") for layer in result.layers if layer["op"] in ("conv", "linear")
    )
    found = [executor.run(sample) for sample in trained.samples]
    same_graph = [OnnxRunner(model, optimize=False).run(sample) for sample in trained.samples]
    rounding = worst_db(trained.references, same_graph)
    assert worst_db(same_graph, found) >= rounding - 3, (
        "float16 moves some roundings by a step: no more than rounding itself costs"
    )
    assert worst_db(trained.references, found) >= rounding - 3


def elements(model: ir.Model) -> int:
    """Of the weights: what has more than one axis."""
    arrays = [value.const_value.numpy() for value in model.graph.initializers.values() if value.const_value is not None]
    return sum(array.size for array in arrays if array.ndim > 1)


@pytest.mark.shared
@pytest.mark.parametrize("target", ["iOS17", "iOS18"])
def test_a_sentence_encoder_with_flexible_batch_and_length(
    build_model: BuildModel, iphone: DeviceProfile, target: str, sentence_encoder: tuple[Path, ir.Model]
) -> None:
    folder, model = sentence_encoder
    assert [entry for entry in TARGET.support(model, iphone) if not entry.taken] == []
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    texts = ["A cat sits on the mat.", "The feline rests upon a rug, and nobody minds.", "Compilers fold constants."]
    batches = [dict(tokenizer(chosen, padding=True, return_tensors="np")) for chosen in (texts, texts[:1])]
    reference = OnnxRunner(model, optimize=False)
    dims = {"batch": {"max": 8}, "sequence": {"max": 256, "default": 128}}
    executor, result, _ = build_model(model, minimum_deployment_target=target, dims=dims)
    found = operations(result)
    assert (found["layer_norm"], found["gelu"]) == (5, 2)
    assert found["scaled_dot_product_attention"] == (2 if target == "iOS18" else 0)
    for inputs in batches:
        assert worst_db([reference.run(inputs)], [executor.run(inputs)]) >= 40
