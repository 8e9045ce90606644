"""scikit-learn's handwritten digits (1,797 real images, 8x8 grey), split once and for all.

The command line reads them as ``--data examples/digits/data.py:test`` and ``--calib examples/digits/data.py:calib``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from sklearn.datasets import load_digits

# The split was drawn before any network was trained; choices were made on the validation part alone.
_TEST, _VALIDATION = 450, 225
_SPLIT_SEED = 0


def split() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """``train``, ``validation`` and ``test``: images f32[N,1,8,8] from 0 to 1, labels i64[N]."""
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[:, None]
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(images))
    parts = dict(zip(("test", "validation", "train"), np.split(order, [_TEST, _TEST + _VALIDATION]), strict=True))
    return {name: (images[index], digits.target[index].astype(np.int64)) for name, index in parts.items()}


def test() -> Iterator[dict[str, np.ndarray | int]]:
    """The 450 test images, one at a time."""
    yield from _samples(*split()["test"])


def calib() -> Iterator[dict[str, np.ndarray | int]]:
    """128 of the training images: what a network may see before it is tested."""
    images, labels = split()["train"]
    yield from _samples(images[:128], labels[:128])


def _samples(images: np.ndarray, labels: np.ndarray) -> Iterator[dict[str, np.ndarray | int]]:
    for image, label in zip(images, labels, strict=True):
        yield {"image": image[None], "label": int(label)}
