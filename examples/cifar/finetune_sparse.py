"""Fine-tune a CIFAR-10 network with a pattern of zeros: prune by a second-order solve, then train with masks, the dense network as the teacher.

python examples/cifar/finetune_sparse.py resnet20_cifar10.th --data train/ --pattern block:4x4 -o sparse.pth
edgewise export sparse.pth --arch examples/cifar/resnet20.py:resnet20 --input "image=f32[batch,3,32,32]" -o sparse.onnx

DATA are training images (a folder or zip), such as the folder ``train`` of the public repository cyizhuo/CIFAR-10-dataset; labels are not
used. ``--arch path.py:callable`` takes another network. With ``--final`` above ``--sparsity`` the masks close on from there, along the
cubic schedule of Zhu and Gupta (2017). ``--teacher`` takes another network, of ``--teacher-arch``, than the dense one. Every twentieth image judges how often student and teacher agree and is not trained on; ``--test
DATA`` prints top-1 of labelled images of the dense, the pruned and the fine-tuned network.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edgewise.quantize.sparsity import TorchMasks, cubic_sparsity, torch_masks
from edgewise.runtime.data import open_data
from edgewise.runtime.preprocess import Preprocess
from edgewise.runtime.tensors import TensorSpec

_PREPROCESS = "scale=255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225"
_RESNET20 = f"{Path(__file__).with_name('resnet20.py')}:resnet20"
_TEMPERATURE = 2.0
_HELD = 20  # every twentieth image judges


def load(path: Path, arch: str) -> nn.Module:
    file, _, name = arch.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = {name.removeprefix("module."): value for name, value in state.get("state_dict", state).items()}
    module: nn.Module = getattr(found, name)()
    module.load_state_dict(state)
    return module.eval()


def images(source: str, limit: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """f32[N,3,32,32] and i64[N] labels (-1 where there is none)."""
    data = open_data(
        source, [TensorSpec("image", "float32", (1, 3, 32, 32))], Preprocess.parse(_PREPROCESS), limit=limit
    )
    pairs = [(sample.inputs["image"], sample.label) for sample in data]
    labels = [label if isinstance(label, int) else -1 for _, label in pairs]
    return torch.from_numpy(np.concatenate([image for image, _ in pairs])), torch.tensor(labels)


def augmented(batch: torch.Tensor) -> torch.Tensor:
    """Shifted by up to four pixels, every second image mirrored."""
    rows, columns = torch.randint(0, 9, (2,)).tolist()
    moved = functional.pad(batch, (4, 4, 4, 4))[:, :, rows : rows + 32, columns : columns + 32]
    mirrored = torch.rand(len(batch)) < 0.5
    return torch.where(mirrored[:, None, None, None], moved.flip(3), moved)


def train(
    student: nn.Module, teacher: nn.Module, masks: TorchMasks, data: torch.Tensor, options: argparse.Namespace
) -> None:
    """Towards the teacher's probabilities; the rate falls along a cosine."""
    optimizer = torch.optim.AdamW(student.parameters(), options.lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    started = time.perf_counter()
    for step in range(options.steps):
        if options.final > options.sparsity and step <= options.steps // 2:
            closing = cubic_sparsity(
                step, start=0, end=options.steps // 2, initial=options.sparsity, final=options.final
            )
            masks.refresh(closing)
        batch = augmented(data[torch.randint(len(data), (options.batch,))])
        with torch.no_grad():
            wanted = functional.log_softmax(teacher(batch) / _TEMPERATURE, 1)
        found = functional.log_softmax(student(batch) / _TEMPERATURE, 1)
        loss = functional.kl_div(found, wanted, log_target=True, reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        masks.apply()
        if step % 50 == 0:
            elapsed = time.perf_counter() - started
            print(
                f"step {step} of {options.steps}: loss {loss.item():.4f}, zeros {masks.sparsity:.3f}, {elapsed:.0f} s",
                flush=True,
            )


@torch.no_grad()
def classes(module: nn.Module, data: torch.Tensor) -> torch.Tensor:
    return torch.cat([module(batch).argmax(1) for batch in data.split(250)])


def share(these: torch.Tensor, those: torch.Tensor) -> str:
    return f"{100 * float((these == those).float().mean()):.2f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--arch", default=_RESNET20, help="path.py:callable that makes the network")
    parser.add_argument("--teacher", type=Path, help="weights of another teacher than the dense network")
    parser.add_argument("--teacher-arch", default=_RESNET20)
    parser.add_argument("--data", required=True)
    parser.add_argument("--test")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--pattern", default="block:4x1")
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--final", type=float, default=0.0)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--samples", type=int, help="use at most so many images")
    options = parser.parse_args()
    torch.manual_seed(0)
    everything, _ = images(options.data, options.samples)
    judges = torch.arange(len(everything)) % _HELD == 0
    held, data = everything[judges], everything[~judges]
    dense = load(options.weights, options.arch)
    teacher = load(options.teacher, options.teacher_arch) if options.teacher else dense
    # In eval mode all along: the statistics of BatchNorm stay those of the whole training set.
    student = copy.deepcopy(dense)
    first = next(name for name, child in student.named_modules() if isinstance(child, nn.Conv2d))
    some = data[:: max(1, len(data) // 512)][:512]
    masks = torch_masks(
        student, pattern=options.pattern, sparsity=options.sparsity, skip=[first], batches=some.split(64)
    )
    for name, reason in masks.refused.items():
        print(f"left alone: {name}: {reason}")
    wanted = classes(teacher, held)
    print(
        f"agrees with the teacher on {share(classes(student, held), wanted)} of {len(held)} held-out images", flush=True
    )
    test = images(options.test, None) if options.test else None
    if test:
        print(
            f"top-1 dense {share(classes(dense, test[0]), test[1])}, pruned {share(classes(student, test[0]), test[1])}",
            flush=True,
        )
    train(student, teacher, masks, data, options)
    print(f"agrees with the teacher on {share(classes(student, held), wanted)} of {len(held)} held-out images")
    if test:
        print(
            f"top-1 fine-tuned {share(classes(student, test[0]), test[1])}, zeros {100 * masks.sparsity:.1f} % of the masked layers"
        )
    torch.save(student.state_dict(), options.output)


if __name__ == "__main__":
    main()
