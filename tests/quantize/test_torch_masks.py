"""Masks for fine-tuning: patterns hold through training, export and quantization; the solve equals the graph's own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from edgewise.quantize import QuantizeError, QuantSpec, prune, quantize, sparsity_of
from edgewise.quantize.sparsity import TorchMasks, cubic_sparsity, torch_masks
from edgewise.runtime.data import Dataset
from edgewise.runtime.tensors import TensorSpec


class Net(nn.Module):
    """Convolutions with and without BatchNorm, a grouped and a depthwise one, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.mid, self.mid_norm = nn.Conv2d(16, 16, 3, 2, padding=1, groups=2, bias=False), nn.BatchNorm2d(16)
        self.deep, self.head = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm(self.stem(x)))
        y = torch.relu(self.deep(torch.relu(self.mid_norm(self.mid(y)))))
        return self.head(y.mean((2, 3)))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    module = Net()
    for norm in (module.norm, module.mid_norm):
        nn.init.normal_(norm.weight)  # negative scales too: they must not make -0.0 of zeros
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return module


@pytest.fixture
def batches() -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(16, 3, 8, 8) for _ in range(3)]


def train(net: nn.Module, masks: TorchMasks, batches: list[torch.Tensor], final: float = 0.0) -> None:
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)
    for step, batch in enumerate(batches * 2):
        if final:
            masks.refresh(cubic_sparsity(step, start=0, end=5, final=final))
        optimizer.zero_grad()
        net(batch).square().mean().backward()
        optimizer.step()
        masks.apply()


def blocks(weight: torch.Tensor) -> np.ndarray:
    """[outputs, positions, groups of four inputs]: how many weights of each block are not zero."""
    flat = weight.detach().numpy().reshape(*weight.shape[:2], -1).transpose(0, 2, 1)
    return np.count_nonzero(flat.reshape(*flat.shape[:2], -1, 4), axis=-1)


@pytest.mark.parametrize("solved", [False, True])
def test_blocks_stay_zero_through_training(net: Net, batches: list[torch.Tensor], solved: bool) -> None:
    masks = torch_masks(net, pattern="block:4x1", sparsity=0.5, batches=batches if solved else None)
    assert masks.names == ["mid", "head"]
    assert set(masks.refused) == {"stem", "deep"}
    train(net, masks, batches)
    for name in masks.names:
        found = blocks(net.get_submodule(name).weight)
        assert set(np.unique(found)) == {0, 4}
        assert np.mean(found == 0) == 0.5
    assert masks.sparsity == 0.5


def test_a_schedule_closes_the_masks(net: Net, batches: list[torch.Tensor]) -> None:
    masks = torch_masks(net, pattern="block:4x1", sparsity=0.0)
    assert masks.sparsity == 0
    train(net, masks, batches, final=0.75)
    assert masks.sparsity == 0.75
    assert np.mean(blocks(net.mid.weight) == 0) == 0.75


def test_the_schedule_is_cubic() -> None:
    steps = np.arange(-5, 25)
    found = [cubic_sparsity(int(step), start=0, end=20, initial=0.1, final=0.9) for step in steps]
    wanted = 0.9 - 0.8 * (1 - np.clip(steps / 20, 0, 1)) ** 3
    np.testing.assert_allclose(found, wanted)


@pytest.mark.parametrize("pattern", ["2:4", "block:4x1", "block:4x4"])
def test_export_and_quantization_keep_the_zeros(
    net: Net, batches: list[torch.Tensor], dataset: Callable[..., Dataset], pattern: str
) -> None:
    """BatchNorm folds into the weights, int8 rounds them, biases are corrected: what was zero is zero."""
    from edgewise.exporter import export

    masks = torch_masks(net, pattern=pattern, sparsity=0.5, batches=batches)
    train(net, masks, batches)
    exported = export(net.eval(), inputs=[TensorSpec("x", "float32", (1, 3, 8, 8))]).model
    data = dataset([{"x": batch[:1].numpy()} for batch in batches])
    rounded = quantize(exported, QuantSpec(), data).model
    entries = [entry for entry in sparsity_of(exported) if entry["pattern"] == pattern]
    assert len(entries) == 2
    for entry in entries:
        assert entry["density"] <= 0.5
        before = exported.graph.initializers[entry["weight"]].const_value.numpy()  # type: ignore[union-attr]
        (after,) = (
            value.const_value.numpy()
            for name, value in rounded.graph.initializers.items()
            if name.startswith(entry["weight"]) and value.dtype == ir.DataType.INT8 and value.shape == before.shape
        )
        assert np.any(after) and not np.any(after[before == 0])


def test_the_solve_is_the_one_of_the_graph(batches: list[torch.Tensor], dataset: Callable[..., Dataset]) -> None:
    """The same layer pruned in PyTorch and in ONNX, both second order on the same inputs."""
    from edgewise.exporter import export

    torch.manual_seed(3)
    net = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 8, (3, 2), (2, 1), (1, 0), (1, 2)), nn.ReLU()).eval()
    exported = export(net, inputs=[TensorSpec("x", "float32", (1, 3, 8, 8))]).model
    data = dataset([{"x": batch[i : i + 1].numpy()} for batch in batches for i in range(16)])
    made = prune(exported, pattern="unstructured", sparsity=0.5, criterion="second_order", data=data)
    torch_masks(net, pattern="unstructured", sparsity=0.5, batches=batches)
    value = made.model.graph.initializers[made.report["layers"][0]["weight"]].const_value
    assert value is not None
    np.testing.assert_allclose(net[1].weight.detach().numpy(), value.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "3x3"}, "unknown pattern"),
        ({"skip": ["haed"]}, "no submodule of that name"),
        ({"pattern": "block:64x1"}, "nothing to prune"),
        ({"pattern": "2:4", "sparsity": 0.7}, "which is what 2:4 leaves out"),
        ({"batches": []}, "a layer that no batch reached"),
        ({"batches": [torch.zeros(1, 3, 8, 8)], "skip": ["mid"]}, "too few samples: 1 rows"),
    ],
)
def test_requests_that_cannot_be(net: Net, options: dict, message: str) -> None:
    with pytest.raises(QuantizeError) as error:
        torch_masks(net, **{"pattern": "block:4x1", "sparsity": 0.5, **options})
    assert message in str(error.value)


def test_layers_left_alone_say_why(net: Net) -> None:
    with torch.no_grad():
        net.mid.weight.zero_()
    masks = torch_masks(net, pattern="unstructured", sparsity=0.5, skip=["stem"])
    assert masks.refused["stem"] == "asked for"
    assert masks.refused["mid"] == "its weight is all zero"
    assert masks.refused["deep"].startswith("it is a depthwise convolution")


@pytest.mark.parametrize("numbers", [{"start": 5, "end": 5, "final": 0.5}, {"start": 0, "end": 5, "final": 1.0}])
def test_schedules_that_cannot_be(numbers: dict) -> None:
    with pytest.raises(QuantizeError, match="cannot make a schedule"):
        cubic_sparsity(0, **numbers)
