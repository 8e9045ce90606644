"""Train the two networks on the digits and write ``cnn.pth`` and ``vit.pth``: under a minute each on one core.

    python examples/digits/train.py                 trains on the train and validation parts, reports the test accuracy
    python examples/digits/train.py --validate      trains on the train part alone, reports the validation accuracy

Epochs, learning rate and augmentation were chosen with ``--validate``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from data import split
from model import cnn, vit
from torch import Tensor, nn
from torch.nn import functional

_BUILDERS = {"cnn": cnn, "vit": vit}
_EPOCHS = {"cnn": 40, "vit": 150}
_RATE = {"cnn": 5e-3, "vit": 2e-3}
_BATCH = 64


def train(name: str, images: np.ndarray, labels: np.ndarray, seed: int) -> nn.Module:
    """AdamW with a one-cycle learning rate, label smoothing and small random shifts, turns and scales."""
    torch.manual_seed(seed)
    network = _BUILDERS[name]()
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    steps = len(x) // _BATCH
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE[name], weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE[name], total_steps=_EPOCHS[name] * steps)
    for _ in range(_EPOCHS[name]):
        for batch in torch.randperm(len(x))[: steps * _BATCH].split(_BATCH):
            loss = functional.cross_entropy(network(distort(x[batch])), y[batch], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def distort(images: Tensor) -> Tensor:
    """Turn by up to 10 degrees, scale by up to 10 %, shift by up to one pixel, each image in its own way."""
    count = len(images)
    angle = (torch.rand(count) * 2 - 1) * np.pi / 18
    scale = 1 + (torch.rand(count) * 2 - 1) * 0.1
    shift = (torch.rand(count, 2) * 2 - 1) * 0.25  # the picture spans -1 to 1: a pixel is a quarter
    cos, sin = angle.cos() * scale, angle.sin() * scale
    affine = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], 1).reshape(count, 2, 3)
    return functional.grid_sample(images, functional.affine_grid(affine, images.shape, align_corners=False), align_corners=False)  # fmt: skip


def accuracy(network: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of images whose largest logit is the label's."""
    with torch.no_grad():
        return float((network(torch.from_numpy(images)).argmax(1).numpy() == labels).mean())


def main() -> None:
    """Train both networks, or report how they do on the validation part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--validate", action="store_true", help="hold the validation part out and write nothing")
    parser.add_argument("--network", choices=sorted(_BUILDERS), action="append", help="only this one (repeatable)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the checkpoints go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts = split()
    seen = ["train"] if options.validate else ["train", "validation"]
    judge = "validation" if options.validate else "test"
    images, labels = (np.concatenate([parts[part][i] for part in seen]) for i in range(2))
    for name in options.network or sorted(_BUILDERS):
        start = time.perf_counter()
        network = train(name, images, labels, options.seed)
        seconds = time.perf_counter() - start
        print(f"{name}: {judge} accuracy {accuracy(network, *parts[judge]):.2%} after {seconds:.0f} s")
        if not options.validate:
            torch.save(network.state_dict(), options.out / f"{name}.pth")


if __name__ == "__main__":
    main()
