"""Training the weights that stay, part by part, until the parts give what they gave before pruning."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from edgewise.quantize.layers import WEIGHTED, constant_of, describe
from edgewise.quantize.pruning.biases import bias_of
from edgewise.quantize.pruning.blocks import Part, parts_of, whole
from edgewise.quantize.pruning.walk import until
from edgewise.runtime.extras import needs
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.progress import Progress

if TYPE_CHECKING:
    import torch

    from edgewise.runtime.data import Dataset

_EPOCHS, _BATCH = 8, 16
_RATE = 0.02  # of a tensor's mean magnitude, at the start of the cosine
_HELD = 8  # every eighth sample judges and does not train
_SEED = 0

Arrays = dict[str, np.ndarray]


class Reconstruction:
    """Reconstructs a pruned network, in place, from unlabelled samples.

    Before::

        pruned part ─► y'        dense part ─► y

    After: the weights and biases of the pruned part are those that bring y' nearest to y; zeros stay zeros. Parts are
    taken in order, each reading what the parts before it give now, and then the whole network once. What does not lower
    the error on samples that were not trained on is taken back. After Y. Li et al., "BRECQ" (ICLR 2021), and E. Frantar
    and D. Alistarh, "Optimal Brain Compression" (2022), which do this for rounding and for layers.
    """

    def __init__(self, model: ir.Model, dense: ir.Model, data: Dataset, progress: Progress) -> None:
        self._model, self._dense, self._data, self._progress = model, dense, data, progress

    def run(self) -> list[dict[str, Any]]:
        """Lines of the report: ``output, before, after`` (relative squared errors on held-out samples), ``reason``."""
        parts = parts_of(self._model.graph)
        ends = [whole(self._model.graph, value) for value in self._model.graph.outputs[:1]]
        rows = []
        for number, part in enumerate([*parts, *ends]):
            rows.append(self._part(part))
            self._progress("reconstruct", number + 1, len(parts) + len(ends))
        return rows

    def _part(self, part: Part) -> dict[str, Any]:
        with needs("export"):
            import torch

            from edgewise.quantize.pruning.torch_part import TorchPart
        row: dict[str, Any] = {"output": str(part.output.name)}
        values = trainable(part)
        if not values:
            return row | {"reason": "it has no weights of its own"}
        torch.manual_seed(_SEED)
        with tempfile.TemporaryDirectory() as folder:
            store = _Store(Path(folder) / "tensors")
            pairs = list(self._pairs(part, store))
            held, seen = pairs[::_HELD], [pair for index, pair in enumerate(pairs) if index % _HELD]
            if not seen:
                return row | {"reason": f"too few samples: {len(pairs)}"}
            try:
                made = TorchPart(part, values)
                before = _error(made, store, held)
                _train(made, store, seen)
            except NotImplementedError as error:
                return row | {"reason": str(error)}
            after = _error(made, store, held)
        kept = after < before
        if kept:
            made.write_back()
        return row | {"before": before, "after": after, "kept": kept}

    def _pairs(self, part: Part, store: _Store) -> Iterator[_Pair]:
        """What the part reads in the network as it is, and what it gave in the dense one; held in a file."""
        names, output = [str(value.name) for value in part.inputs], str(part.output.name)
        now, then = (
            OnnxRunner(until(model, wanted), outputs=wanted)
            for model, wanted in ((self._model, names), (self._dense, [output]))
        )
        for sample in self._data:
            inputs = {name: store.put(array) for name, array in now.run(sample.inputs).items()}
            yield _Pair(inputs, store.put(then.run(sample.inputs)[output]))


def trainable(part: Part) -> list[ir.Value]:
    """Weights and biases of layers, scales and shifts of normalizations: float32 constants that nothing else reads."""
    found: dict[ir.Value, None] = {}
    for node in part.nodes:
        if node.op_type in WEIGHTED and not node.domain:
            layer = describe(node)
            if layer.weight is None:
                continue
            weight = node.inputs[layer.weight]
            axis = layer.channel_axis
            array = constant_of(weight)
            bias = bias_of(layer, array.shape[axis]) if array is not None and axis is not None else None
            found.update(dict.fromkeys(value for value in (weight, bias) if value is not None))
        elif node.op_type == "LayerNormalization":
            found.update(dict.fromkeys(value for value in node.inputs[1:] if value is not None))
    return [value for value in found if _own(value)]


def _own(value: ir.Value) -> bool:
    array = constant_of(value)
    return array is not None and array.dtype == np.float32 and len(list(value.uses())) == 1


@dataclass(frozen=True)
class _Place:
    offset: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class _Pair:
    inputs: dict[str, _Place]
    output: _Place

    @property
    def form(self) -> tuple[Any, ...]:
        """Samples of one form can be computed together."""
        return tuple((name, place.shape) for name, place in self.inputs.items())


class _Store:
    """Arrays in one file, so that memory does not grow with the samples."""

    def __init__(self, path: Path) -> None:
        self._path, self._end = path, 0
        path.touch()

    def put(self, array: np.ndarray) -> _Place:
        data = np.ascontiguousarray(array).tobytes()
        with self._path.open("ab") as file:
            file.write(data)
        place = _Place(self._end, array.shape, array.dtype.str)
        self._end += len(data)
        return place

    def get(self, place: _Place) -> np.ndarray:
        with self._path.open("rb") as file:
            file.seek(place.offset)
            count = int(np.prod(place.shape, dtype=np.int64))
            return np.fromfile(file, np.dtype(place.dtype), count).reshape(place.shape)


def _loss(part: Any, store: _Store, pair: _Pair) -> tuple[torch.Tensor, float]:
    import torch

    inputs = {name: torch.from_numpy(store.get(place)) for name, place in pair.inputs.items()}
    wanted = torch.from_numpy(store.get(pair.output))
    made: torch.Tensor = part(inputs)
    return (made - wanted).square().sum(), float(wanted.square().sum())


def _error(part: Any, store: _Store, pairs: Sequence[_Pair]) -> float:
    import torch

    with torch.no_grad():
        found = [_loss(part, store, pair) for pair in pairs]
    return sum(float(loss) for loss, _ in found) / max(sum(size for _, size in found), 1e-30)


def _train(part: Any, store: _Store, pairs: Sequence[_Pair]) -> None:
    import torch

    groups = [{"params": [each], "lr": _RATE * float(each.detach().abs().mean() + 1e-8)} for each in part.parameters]
    optimizer = torch.optim.Adam(groups)
    steps = _EPOCHS * -(-len(pairs) // _BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    scale = max(sum(_loss(part, store, pair)[1] for pair in pairs[:_BATCH]) / len(pairs[:_BATCH]), 1e-30)
    for _ in range(_EPOCHS):
        order = torch.randperm(len(pairs)).tolist()
        for start in range(0, len(pairs), _BATCH):
            optimizer.zero_grad()
            chosen = [pairs[index] for index in order[start : start + _BATCH]]
            for pair in chosen:
                torch.autograd.backward(_loss(part, store, pair)[0] / (scale * len(chosen)))
            optimizer.step()
            schedule.step()
            part.keep_zeros()
