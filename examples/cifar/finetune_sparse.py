"""Fine-tune ResNet-20 with a pattern of zeros: prune by a second-order solve, then train with masks, the dense network as the teacher.

python examples/cifar/finetune_sparse.py resnet20_cifar10.th --data cifar10_train.zip --pattern block:4x4 -o sparse.pth
edgewise export sparse.pth --arch examples/cifar/resnet20.py:resnet20 --input "image=f32[batch,3,32,32]" -o sparse.onnx

DATA are training images (a folder or zip); labels are not used. With ``--final`` above ``--sparsity`` the masks close on from
there, along the cubic schedule of Zhu and Gupta (2017). ``--test DATA`` prints top-1 of labelled images before and after.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
import torch
from resnet20 import resnet20
from torch import nn
from torch.nn import functional

from edgewise.quantize.sparsity import TorchMasks, cubic_sparsity, torch_masks
from edgewise.runtime.data import open_data
from edgewise.runtime.preprocess import Preprocess
from edgewise.runtime.tensors import TensorSpec

_PREPROCESS = "scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225"
_TEMPERATURE = 2.0


def load(path: Path) -> nn.Module:
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = {name.removeprefix("module."): value for name, value in state.get("state_dict", state).items()}
    module = resnet20()
    module.load_state_dict(state)
    return module.eval()


def images(source: str, limit: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """f32[N,3,32,32] and i64[N] labels (-1 where there is none)."""
    data = open_data(
        source, [TensorSpec("image", "float32", (1, 3, 32, 32))], Preprocess.parse(_PREPROCESS), limit=limit
    )
    samples = list(data)
    labels = [-1 if sample.label is None else sample.label for sample in samples]
    return torch.from_numpy(np.concatenate([sample.inputs["image"] for sample in samples])), torch.tensor(labels)


def augmented(batch: torch.Tensor) -> torch.Tensor:
    """Shifted by up to four pixels, every second image mirrored."""
    rows, columns = torch.randint(0, 9, (2,)).tolist()
    moved = functional.pad(batch, (4, 4, 4, 4))[:, :, rows : rows + 32, columns : columns + 32]
    mirrored = torch.rand(len(batch)) < 0.5
    return torch.where(mirrored[:, None, None, None], moved.flip(3), moved)


def train(
    student: nn.Module, teacher: nn.Module, masks: TorchMasks, data: torch.Tensor, options: argparse.Namespace
) -> None:
    optimizer = torch.optim.SGD(student.parameters(), options.lr, momentum=0.9, nesterov=True)
    steps = options.epochs * max(len(data) // options.batch, 1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        if options.final > options.sparsity:
            closing = cubic_sparsity(step, start=0, end=steps // 2, initial=options.sparsity, final=options.final)
            masks.refresh(closing)
        batch = augmented(data[torch.randperm(len(data))[: options.batch]])
        with torch.no_grad():
            wanted = functional.log_softmax(teacher(batch) / _TEMPERATURE, 1)
        found = functional.log_softmax(student(batch) / _TEMPERATURE, 1)
        loss = functional.kl_div(found, wanted, log_target=True, reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        masks.apply()
        if step % 20 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.4f}, sparsity {masks.sparsity:.3f}", flush=True)


@torch.no_grad()
def top1(module: nn.Module, data: tuple[torch.Tensor, torch.Tensor]) -> float:
    pairs = zip(data[0].split(250), data[1].split(250), strict=True)
    return sum(int((module(batch).argmax(1) == labels).sum()) for batch, labels in pairs) / len(data[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--test")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--pattern", default="block:4x1")
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--final", type=float, default=0.0)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.005)
    parser.add_argument("--samples", type=int, help="use at most so many images")
    options = parser.parse_args()
    torch.manual_seed(0)
    data, _ = images(options.data, options.samples)
    test = images(options.test, None) if options.test else None
    teacher = load(options.weights)
    # In eval mode all along: the statistics of BatchNorm stay those of the whole training set.
    student = copy.deepcopy(teacher)
    masks = torch_masks(student, pattern=options.pattern, sparsity=options.sparsity, batches=data[:512].split(64))
    for name, reason in masks.refused.items():
        print(f"left alone: {name}: {reason}")
    if test:
        print(f"dense {top1(teacher, test):.4f}, pruned {top1(student, test):.4f}", flush=True)
    train(student, teacher, masks, data, options)
    if test:
        print(f"fine-tuned {top1(student, test):.4f}")
    torch.save(student.state_dict(), options.output)


if __name__ == "__main__":
    main()
