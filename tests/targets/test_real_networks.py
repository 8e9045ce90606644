"""Networks that others trained, through the targets cpu and tensorrt: nothing refused, precision as asked, outputs as the source's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgewise.exporter import export
from edgewise.quantize import quantize
from edgewise.runtime.compare import compare_outputs
from edgewise.runtime.data import open_data
from edgewise.runtime.preprocess import Preprocess
from edgewise.runtime.tensors import TensorSpec
from edgewise.targets import Executor, find_device, targets

pytestmark = [pytest.mark.shared, pytest.mark.slow]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CIFAR = "scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225"


@dataclass(frozen=True)
class Network:
    """A checkpoint, how it is opened, what it sees, and how many convolutions and products with weights it has."""

    file: str
    arch: str
    input: str
    data: str
    preprocess: str
    layers: int


NETWORKS = {
    "resnet20": Network("resnet20_cifar10.th", "{examples}/cifar/resnet20.py:resnet20", "x=f32[N,3,32,32]", "cifar10", CIFAR, 20),
    "vit": Network("vit_cifar10.pth", "{models}/vit_cifar.py:vit_cifar", "x=f32[1,3,32,32]", "cifar10", CIFAR, 28),
    "squeezenet": Network(
        "squeezenet10_imagenet.pth", "{examples}/imagenet/squeezenet.py:squeezenet10", "x=f32[1,3,227,227]", "imagenet",
        "resize=none,crop=227,color=bgr,scale=1,mean=104:117:123", 26,
    ),
    "fastestdet": Network("fastestdet_coco.onnx", "", "", "imagenet", "resize=352x352,color=bgr,scale=255", 70),
    "ultraface": Network("ultraface_rfb320.onnx", "", "", "imagenet", "resize=240x320,color=rgb,scale=1,mean=127,std=128", 52),
}  # fmt: skip


@dataclass(frozen=True)
class Opened:
    """An exported network with samples, and what the source makes of them."""

    model: Any
    calib: Any
    samples: list[Any]
    references: list[Any]
    layers: int


@pytest.fixture(scope="module", params=NETWORKS)
def opened(request: pytest.FixtureRequest, shared_dir: Path) -> Opened:
    network, models = NETWORKS[request.param], shared_dir / "models"
    arch = network.arch.format(models=models, examples=EXAMPLES) or None
    inputs = [TensorSpec.parse(network.input)] if network.input else []
    exported = export(models / network.file, arch=arch, inputs=inputs, verify=False)
    preprocess = Preprocess.parse(network.preprocess)
    calib, test = (
        open_data(str(shared_dir / "data" / f"{network.data}_{part}.zip"), exported.inputs, preprocess)
        for part in ("calib", "test")
    )
    samples = [dict(sample.inputs) for sample, _ in zip(test, range(3), strict=False)]
    references = [exported.source.run(sample) for sample in samples]
    return Opened(exported.model, calib, samples, references, network.layers)


def worst_db(opened: Opened, executor: Any) -> float:
    assert isinstance(executor, Executor)
    return min(
        parity.sqnr_db
        for parity in compare_outputs(opened.references, [executor.run(sample) for sample in opened.samples])
    )


@pytest.mark.parametrize(("name", "device", "db"), [("cpu", "x86-64-v3", 100), ("tensorrt", "rtx-4070", 40)])
def test_float(opened: Opened, name: str, device: str, db: float, make_bundle: Callable[..., Any]) -> None:
    target = targets()[name]
    assert [entry for entry in target.support(opened.model, find_device(device, name)) if not entry.taken] == []
    bundle, result = make_bundle(target, opened.model, device=device)
    assert not any("Not in" in note for note in result.notes)
    assert worst_db(opened, target.executor(bundle)) > db


@pytest.mark.parametrize(("name", "device"), [("cpu", "x86-64-v4-vnni"), ("tensorrt", "rtx-3060")])
def test_int8(opened: Opened, name: str, device: str, make_bundle: Callable[..., Any]) -> None:
    target = targets()[name]
    spec = target.quantization("int8", find_device(device, name))
    model = quantize(opened.model, spec, opened.calib, samples=32).model
    bundle, result = make_bundle(target, model, device=device)
    notes = " ".join(result.notes)
    expected = "100 % of the multiply-accumulates run in int8." if name == "cpu" else f"{opened.layers} in int8"
    assert expected in notes, notes
    assert worst_db(opened, target.executor(bundle)) > 8, "far from a wrong graph, whatever rounding costs"
