"""Which layers of a network are reconstructed together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgewise.quantize.errors import QuantizeError
from edgewise.quantize.layers import WEIGHTED, constant_of, describe
from edgewise.quantize.pruning.blocks import Part, parts_of
from edgewise.quantize.spec import FLOAT, LIMITS, QuantSpec
from edgewise.quantize.walking import Arrays, Walk

_MOST_LAYERS = 6  # of a block that is joined from several: what a transformer's attention and MLP have together
_SAMPLES = 32  # that the entropy is measured on
_LEVELS = 256  # where activations stay in float


@dataclass(frozen=True)
class Block:
    """A stretch of the float network: the tensors that it reads, and the one that it gives, behind the activation where there is one.

    Attributes:
        layers: how many layers with weights lie in it.
    """

    inputs: tuple[ir.Value, ...]
    output: ir.Value
    layers: int


def by_parts(reference: ir.Model, samples: Sequence[Arrays], spec: QuantSpec) -> list[Block]:
    """A block for each part (a residual block, attention, an MLP); a part of a single layer goes with the one behind it.

    ::

        stem ─► [conv conv] ─► [conv conv] ─► [conv conv] ─► dense
        └─────────────────┘    └─────────┘    └─────────┘    └───┘
    """
    groups: list[list[Part]] = [[]]
    for part in parts_of(reference.graph):
        if sum(map(_layers, groups[-1])) > 1:
            groups.append([])
        groups[-1].append(part)
    return [_block(group) for group in groups if group]


def by_entropy(reference: ir.Model, samples: Sequence[Arrays], spec: QuantSpec) -> list[Block]:
    """Parts go together where the tensor between them has a high entropy; blocks end where it is low.

    ::

        stem ─3.1─► [conv conv] ─3.3─► [conv conv] ─2.2─► [conv conv] ─1.4─► dense      bits of entropy, 2.5 in the mean
        └─────────────────────────────────────────┘       └─────────┘        └───┘

    A tensor whose values spread evenly over the steps of its grid carries much of what rounding did before it, and the layers on
    both sides of it are best rounded with each other in view (C. Wang et al., "Q-VLM", NeurIPS 2024). The paper searches
    blocks of layers for a language model; here the borders are those whose entropies, less their mean, have the least sum, with
    at most 6 layers to a block unless one part has more.

    Args:
        reference: the float network.
        samples: inputs by name; 32 of them are looked at.
        spec: the integers of activations.
    """
    parts = parts_of(reference.graph)
    levels = _LEVELS if spec.activation_dtype == FLOAT else len(range(*LIMITS[spec.activation_dtype])) + 1
    walk = Walk(reference, samples[:: max(1, len(samples) // _SAMPLES)])
    entropies = [entropy(walk.values([_behind(part.output)])[0], levels) for part in parts[:-1]]
    ends = cheapest_borders(entropies, [_layers(part) for part in parts], _MOST_LAYERS)
    return [_block(parts[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def entropy(arrays: Iterable[np.ndarray], levels: int) -> float:
    """Of values rounded to ``levels`` even steps between the least and the greatest: in bits, 0 to log2(levels)."""
    arrays = list(arrays)
    low = min((float(array.min()) for array in arrays if array.size), default=0.0)
    high = max((float(array.max()) for array in arrays if array.size), default=0.0)
    if high <= low:
        return 0.0
    counts = np.zeros(levels, dtype=np.int64)
    for array in arrays:
        steps = np.rint((array.astype(np.float64) - low) * ((levels - 1) / (high - low))).astype(np.int64)
        counts += np.bincount(steps.ravel(), minlength=levels)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def cheapest_borders(costs: Sequence[float], layers: Sequence[int], most: int) -> list[int]:
    """Where blocks end, so that the costs of their borders, less the mean of all costs, have the least sum.

    Args:
        costs: of a border behind each part but the last.
        layers: how many each part has.
        most: of the layers that a block of several parts may have.

    Returns:
        behind how many parts each block ends; the last is ``len(layers)``.
    """
    count, mean = len(layers), sum(costs) / max(1, len(costs))
    best: list[tuple[float, list[int]]] = [(0.0, [])]
    for end in range(1, count + 1):
        own = costs[end - 1] - mean if end < count else 0.0
        starts = [start for start in range(end) if start == end - 1 or sum(layers[start:end]) <= most]
        total, ends = min((best[start] for start in starts), key=lambda each: each[0])
        best.append((total + own, [*ends, end]))
    return best[-1][1]


PARTITIONS: dict[str, Callable[[ir.Model, Sequence[Arrays], QuantSpec], list[Block]]] = {
    "parts": by_parts,
    "entropy": by_entropy,
}


def check_partition(name: str, rounding: str) -> None:
    """Raise QuantizeError where there is no partition of that name, or no blocks to choose."""
    if name not in PARTITIONS:
        raise QuantizeError(
            "unknown partition into blocks",
            where=f"partition {name!r}",
            found=repr(name),
            expected=f"one of {', '.join(PARTITIONS)}",
            fix="Choose one of these",
        )
    if name != "parts" and rounding != "blocks":
        raise QuantizeError(
            "there are no blocks to choose",
            where=f"partition {name!r}",
            found=f"rounding {rounding!r}",
            expected="rounding 'blocks'",
            fix="Ask for it as well, or leave the partition out",
        )


def _block(parts: Sequence[Part]) -> Block:
    """What lies between parts (an activation of its own) is of the block as well."""
    made = {value for part in parts for node in part.nodes for value in node.outputs}
    for node in parts[0].nodes[0].graph or ():
        if any(value in made for value in node.inputs):
            made.update(node.outputs)
    inputs = dict.fromkeys(value for part in parts for value in part.inputs if value not in made)
    return Block(tuple(inputs), _behind(parts[-1].output), sum(map(_layers, parts)))


def _layers(part: Part) -> int:
    return sum(node.op_type in WEIGHTED and describe(node).weight is not None for node in part.nodes)


def _behind(value: ir.Value) -> ir.Value:
    """Further along while one operator alone reads it, and reads nothing else that is computed."""
    while not value.is_graph_output() and len(uses := list(value.uses())) == 1:
        node = uses[0].node
        others = [each for each in node.inputs if each is not None and each is not value and constant_of(each) is None]
        if others or node.op_type in WEIGHTED or len(node.outputs) != 1:
            break
        value = node.outputs[0]
    return value
