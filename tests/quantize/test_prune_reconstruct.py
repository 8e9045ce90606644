"""Reconstruction: parts are found, compute what ONNX Runtime computes, and come nearer to the dense network's outputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from edgewise.quantize import QuantizeError, prune, sparsity_of
from edgewise.quantize.passes.prepare import prepare
from edgewise.quantize.pruning.blocks import parts_of, whole
from edgewise.quantize.pruning.torch_ops import run_node
from edgewise.quantize.pruning.torch_part import TorchPart
from edgewise.runtime.data import Dataset
from edgewise.runtime.onnx_runner import OnnxRunner

Data = Callable[..., Dataset]


class Residual(nn.Module):
    """Two residual blocks, the second with stride and padded channels, as in ResNet-20."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = (nn.Conv2d(*dims, 3, padding=1) for dims in ((3, 8), (8, 8), (8, 8)))
        self.c, self.d, self.head = nn.Conv2d(8, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.stem(x))
        y = torch.relu(y + self.b(torch.relu(self.a(y))))
        short = nn.functional.pad(y[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        y = torch.relu(short + self.d(torch.relu(self.c(y))))
        return self.head(nn.functional.max_pool2d(y, 2).mean((2, 3)))


class Encoder(nn.Module):
    """One pre-norm transformer block with a mask that no layer made."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.qkv, self.proj = (
            nn.Linear(12, 16),
            nn.LayerNorm(16),
            nn.Linear(16, 48),
            nn.Linear(16, 16),
        )
        self.norm2, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = (x[:, None, :, 0] < -2).float() * -100
        y = torch.tanh(self.stem(x))
        q, k, v = self.qkv(self.norm(y)).chunk(3, -1)
        y = y + self.proj(((q @ k.transpose(1, 2) / 4 + mask).softmax(-1)) @ v)
        return y + self.down(nn.functional.gelu(self.up(self.norm2(y))))


def exported(module: nn.Module, shape: tuple[int, ...]) -> ir.Model:
    torch.manual_seed(0)
    for layer in module.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    program = torch.onnx.export(module.eval(), (torch.zeros(shape),), dynamo=True, verbose=False)
    assert program is not None
    return prepare(ir.from_proto(program.model_proto))


CASES = [(Residual, (1, 3, 8, 8)), (Encoder, (1, 6, 12))]


@pytest.mark.parametrize(("module", "shape"), CASES)
def test_parts_compute_what_onnx_runtime_computes(module: type[nn.Module], shape: tuple[int, ...]) -> None:
    model = exported(module(), shape)
    parts = parts_of(model.graph)
    layers = [node.op_type for part in parts for node in part.nodes if node.op_type in ("Conv", "MatMul", "Gemm")]
    assert len(layers) == {"Residual": 6, "Encoder": 7}[module.__name__]
    assert len(parts) == {"Residual": 4, "Encoder": 3}[module.__name__]
    name, x = str(model.graph.inputs[0].name), np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for part in [*parts, whole(model.graph, model.graph.outputs[0])]:
        wanted = [str(value.name) for value in (*part.inputs, part.output)]
        found = OnnxRunner(model, outputs=list(dict.fromkeys(wanted))).run({name: x})
        made = TorchPart(part, [])({key: torch.from_numpy(found[key]) for key in wanted[:-1]})
        np.testing.assert_allclose(made.numpy(), found[wanted[-1]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", ["MaxPool", "AveragePool"])
def test_pools_that_round_up_compute_what_onnx_runtime_computes(pool: str, graph: Callable[..., ir.Model]) -> None:
    text = (
        f"(float[1,2,6,6] x) => (float[1,2,3,3] y) {{ y = {pool}<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(x) }}"
    )
    model = graph(text)
    x = np.random.default_rng(0).normal(size=(1, 2, 6, 6)).astype(np.float32)
    (made,) = run_node(next(iter(model.graph)), [torch.from_numpy(x)])
    np.testing.assert_allclose(made.numpy(), OnnxRunner(model).run({"x": x})["y"], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("module", "shape"), CASES)
def test_outputs_come_nearer_and_zeros_stay(
    module: type[nn.Module], shape: tuple[int, ...], normal: Data, dataset: Data
) -> None:
    model = exported(module(), shape)
    name = str(model.graph.inputs[0].name)
    data, test = (dataset([{name: s.inputs["x"]} for s in normal(64, shape, seed=seed)]) for seed in (1, 2))
    made = [
        prune(model, pattern="block:4x1", sparsity=0.5, data=data, reconstruct=trained) for trained in (False, True)
    ]

    def loss(pruned: ir.Model) -> float:
        pairs = [[next(iter(OnnxRunner(m).run(s.inputs).values())) for m in (pruned, model)] for s in test.take(16)]
        return float(sum(np.square(a - b).sum() for a, b in pairs))

    assert loss(made[1].model) < 0.6 * loss(made[0].model)
    plain, trained = (
        {entry["name"]: (entry["pattern"], entry["density"]) for entry in sparsity_of(each.model)} for each in made
    )
    assert plain == trained
    assert all(
        row["kept"] == (row["after"] < row["before"]) for row in made[1].report["reconstructed"] if "kept" in row
    )


def test_what_has_no_gradient_is_left_as_it_is(graph: Callable[..., ir.Model], normal: Data) -> None:
    text = "(float[8, 16] x, float[16, 16] a) => (float[8, 16] y) { r = Relu(x) s = MatMul(r, a) y = Mish(s) }"
    model = graph(text, {"a": np.eye(16, dtype=np.float32) + 0.1})
    made = prune(model, pattern="2:4", sparsity=0.5, data=normal(16, (8, 16)), reconstruct=True)
    assert {row["reason"] for row in made.report["reconstructed"] if "reason" in row} == {"Mish has no gradient here"}


def test_reconstruction_needs_data(graph: Callable[..., ir.Model]) -> None:
    text = "(float[8, 16] x, float[16, 16] a) => (float[8, 16] y) { r = Relu(x) y = MatMul(r, a) }"
    model = graph(text, {"a": np.ones((16, 16), np.float32)})
    with pytest.raises(QuantizeError, match="no calibration data"):
        prune(model, pattern="2:4", sparsity=0.5, reconstruct=True)
