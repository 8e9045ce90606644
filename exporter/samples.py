"""Inputs to trace and to compare with: real ones where there are some, else seeded random ones at two dynamic sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgewise.exporter.source import Arrays, Source
from edgewise.runtime.data import Dataset, random_data
from edgewise.runtime.tensors import TensorSpec, long_dims

Sizes = dict[str, int]

_REAL_SAMPLES = 4
# Of both values: where they start, and how much more each further dim has.
_SIZES = {
    "batch": ((2, 1), (1, 1)),
    "length": ((9, 2), (14, 3)),
    "side": ((96, 32), (160, 32)),
    "signal": ((16_000, 160), (12_000, 160)),
}


def dynamic_sizes(specs: Sequence[TensorSpec]) -> tuple[Sizes, Sizes]:
    """Two values for every symbolic dim. The first one is to trace with: none is 1 and no two are equal, else they would merge."""
    kinds = long_dims(specs)
    first: Sizes = {}
    second: Sizes = {}
    for spec in specs:
        for axis, dim in enumerate(spec.shape):
            if isinstance(dim, str) and dim not in first:
                (start, step), (other, other_step) = _SIZES[kinds.get(dim, "length" if axis else "batch")]
                count = len(first)
                first[dim], second[dim] = start + step * count, other + other_step * count
    return first, second


def with_sizes(specs: Sequence[TensorSpec], sizes: Mapping[str, int]) -> list[TensorSpec]:
    """The specs with their symbolic dims set."""
    return [
        replace(spec, shape=tuple(sizes[dim] if isinstance(dim, str) else dim for dim in spec.shape)) for spec in specs
    ]


def trace_example(source: Source, samples: Sequence[Arrays], seed: int) -> Arrays:
    """What to trace with: sizes as in the samples where a network may want just those, none of them 1, no two equal."""
    sizes, _ = dynamic_sizes(source.inputs)
    for spec in source.inputs:
        for axis, dim in enumerate(spec.shape):
            if isinstance(dim, str) and axis > 0:
                real = samples[0][spec.name].shape[axis]
                if real > 1 and real not in sizes.values():
                    sizes[dim] = real
    return random_samples(source, sizes, 1, seed)[0]


def random_samples(source: Source, sizes: Mapping[str, int], count: int, seed: int) -> list[Arrays]:
    """Seeded random inputs; integers that index a table stay below its size."""
    specs = with_sizes(source.inputs, sizes)
    samples = [dict(sample.inputs) for sample in random_data(specs, count, seed=seed)]
    for index, sample in enumerate(samples):
        generator = np.random.default_rng([seed, index, 1])
        for name, bound in source.bounds.items():
            if name in sample:
                sample[name] = generator.integers(0, bound, sample[name].shape).astype(sample[name].dtype)
    return samples


def choose_samples(source: Source, data: Dataset | None, seed: int) -> list[Arrays]:
    """At least three inputs to compare on, more than one batch size among them where the batch is dynamic."""
    first, second = dynamic_sizes(source.inputs)
    if data is None:
        if not first:
            return random_samples(source, {}, 3, seed)
        return random_samples(source, first, 2, seed) + random_samples(source, second, 2, seed + 1)
    real = [dict(sample.inputs) for sample in data.take(min(_REAL_SAMPLES, len(data)))]
    stacked = _stacked(source.inputs, real)
    if stacked is not None:
        real.append(stacked)
    return real + random_samples(source, first, max(0, 3 - len(real)), seed) if len(real) < 3 else real


def at_another_size(specs: Sequence[TensorSpec], samples: Sequence[Arrays]) -> Arrays | None:
    """The first sample with another size of each dynamic dim that has one size in all samples: cut, or begun again at its end.

    None where every dynamic dim has several sizes. What traces as a constant in such a dim is right on the samples and nowhere else.
    """
    first, second = dynamic_sizes(specs)
    sizes: Sizes = {}
    for spec in specs:
        for axis, dim in enumerate(spec.shape):
            found = {sample[spec.name].shape[axis] for sample in samples}
            if isinstance(dim, str) and len(found) == 1 and 0 not in found:
                sizes[dim] = first[dim] if second[dim] in found else second[dim]
    return {spec.name: _resized(spec, samples[0][spec.name], sizes) for spec in specs} if sizes else None


def _resized(spec: TensorSpec, array: np.ndarray, sizes: Mapping[str, int]) -> np.ndarray:
    for axis, dim in enumerate(spec.shape):
        if isinstance(dim, str) and dim in sizes:
            array = np.take(array, np.arange(sizes[dim]) % array.shape[axis], axis)
    return array


def _stacked(specs: Sequence[TensorSpec], samples: Sequence[Arrays]) -> Arrays | None:
    """Two samples as one batch, where every input has a dynamic first dim and their other dims agree."""
    if len(samples) < 2 or not all(spec.shape and isinstance(spec.shape[0], str) for spec in specs):
        return None
    one, two = samples[:2]
    if any(one[spec.name].shape[1:] != two[spec.name].shape[1:] for spec in specs):
        return None
    return {spec.name: np.concatenate([one[spec.name], two[spec.name]]) for spec in specs}
