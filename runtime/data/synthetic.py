"""Samples that are made up; whoever uses them says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgewise.runtime.data.dataset import Dataset, Sample
from edgewise.runtime.tensors import TensorSpec, long_dims

_LEAST = {"side": 64, "signal": 16_000}


def random_data(inputs: Sequence[TensorSpec], count: int, seed: int = 0, dynamic: int = 1) -> Dataset:
    """Random samples without labels: sample i is the same whatever the count.

    Floating inputs are standard normal, bytes have their full range. Other integers and booleans are 0 or 1, the first
    of each row 1: they may be indices into a table of any size, or a mask, which must not hide everything.

    Args:
        inputs: what the network takes.
        count: how many samples.
        seed: of the generator.
        dynamic: the value of every symbolic dim, but for an image's sides, at least 64, and a signal's
            length, at least 16,000 (:func:`edgewise.runtime.tensors.long_dims`).

    Raises:
        RunError: ``count`` is below 1.
    """
    sizes = {dim: max(_LEAST[kind], dynamic) for dim, kind in long_dims(inputs).items()}

    def read(wanted: Sequence[int]) -> Iterator[Sample]:
        for index in wanted:
            generator = np.random.default_rng([seed, index])
            yield Sample({spec.name: _draw(spec, generator, spec.concrete(dynamic, sizes)) for spec in inputs}, None)

    return Dataset(f"random (seed {seed})", count, read, random=True)


def _draw(spec: TensorSpec, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    if spec.dtype in ("int8", "uint8"):
        limits = np.iinfo(spec.dtype)
        values = generator.integers(limits.min, limits.max, shape or 1, dtype=spec.dtype, endpoint=True)
    elif spec.dtype == "bool" or "int" in spec.dtype:
        values = generator.integers(0, 2, shape or 1)
        values[..., :1] = 1
    else:
        values = generator.standard_normal(shape or 1)
    return values.astype(spec.dtype).reshape(shape)
