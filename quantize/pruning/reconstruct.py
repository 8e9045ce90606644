"""Training the weights that stay, part by part, until the parts give what they gave before pruning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from edgewise.quantize.keeping import Column, Samples
from edgewise.quantize.layers import WEIGHTED, constant_of, describe
from edgewise.quantize.pruning.biases import bias_of
from edgewise.quantize.pruning.blocks import Part, parts_of, whole
from edgewise.quantize.walking import Walk
from edgewise.runtime.extras import needs
from edgewise.runtime.progress import Progress

if TYPE_CHECKING:
    import torch

    from edgewise.quantize.pruning.torch_part import TorchPart
    from edgewise.runtime.data import Dataset

_EPOCHS, _BATCH = 8, 16
_RATE = 0.02  # of a tensor's mean magnitude, at the start of the cosine
_HELD = 8  # every eighth sample judges and does not train
_SEED = 0
_LEAST = 1e-30  # of what is divided by

_Forms = tuple[tuple[tuple[int, ...], bytes], ...]


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
        self._twins = {str(value.name): value for node in dense.graph for value in node.outputs}

    def run(self) -> list[dict[str, Any]]:
        """Lines of the report: ``output, before, after`` (relative squared errors on held-out samples), ``reason``."""
        parts = parts_of(self._model.graph)
        ends = [whole(self._model.graph, value) for value in self._model.graph.outputs[:1]]
        samples = Samples(sample.inputs for sample in self._data)
        rows: list[dict[str, Any]] = []
        for stretch in (parts, ends):
            now, dense = Walk(self._model, samples), Walk(self._dense, samples)
            for part in stretch:
                rows.append({"output": str(part.output.name)} | self._part(part, now, dense))
                now.values([part.output])
                self._progress("reconstruct", len(rows), len(parts) + len(ends))
        return rows

    def _part(self, part: Part, now: Walk, dense: Walk) -> dict[str, Any]:
        """Train a part on what it reads in the network as it is and what it gave in the dense one; the walks are before it."""
        with needs("export"):
            import torch

            from edgewise.quantize.pruning.torch_part import TorchPart
        values = trainable(part)
        if not values:
            return {"reason": "it has no weights of its own"}
        given = {str(value.name): Column() for value in part.inputs}
        for made in now.ahead(part.inputs):
            for name, array in made.items():
                given[name].append(array)
        (wanted,) = dense.values([self._twins[str(part.output.name)]])
        if len(wanted) < 2:
            return {"reason": f"too few samples: {len(wanted)}"}
        torch.manual_seed(_SEED)
        try:
            made_part = TorchPart(part, values)
            before, after = _Training(made_part, given, wanted).run()
        except NotImplementedError as error:
            return {"reason": str(error)}
        if after < before:
            made_part.write_back()
        return {"before": before, "after": after, "kept": after < before}


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


class _Training:
    """A part with what it reads and what it should give, an array for each sample.

    Samples of one form are computed together: of one shape, and with the same sizes where the graph computes sizes.
    """

    def __init__(
        self, part: TorchPart, given: Mapping[str, Sequence[np.ndarray]], wanted: Sequence[np.ndarray]
    ) -> None:
        self._part, self._given, self._wanted = part, given, wanted
        self._forms = [tuple(_form(arrays[index]) for arrays in given.values()) for index in range(len(wanted))]
        self._held = [index for index in range(len(wanted)) if index % _HELD == 0]
        self._seen = [index for index in range(len(wanted)) if index % _HELD]

    def run(self) -> tuple[float, float]:
        """Train; the error on held-out samples before and after, of the wanted outputs' size."""
        before = self._error()
        self._train()
        return before, self._error()

    def _error(self) -> float:
        import torch

        with torch.no_grad():
            found = [self._loss(group) for batch in self._batches(self._held) for group in self._alike(batch)]
        return sum(float(loss) for loss, _ in found) / max(sum(size for _, size in found), _LEAST)

    def _train(self) -> None:
        import torch

        rates = [_RATE * float(each.detach().abs().mean() + 1e-8) for each in self._part.parameters]
        groups = [{"params": [each], "lr": rate} for each, rate in zip(self._part.parameters, rates, strict=True)]
        optimizer = torch.optim.Adam(groups)
        steps = _EPOCHS * -(-len(self._seen) // _BATCH)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        first = self._seen[:_BATCH]
        scale = max(sum(float(np.square(self._wanted[index]).sum()) for index in first) / len(first), _LEAST)
        for _ in range(_EPOCHS):
            batches = self._batches([self._seen[index] for index in torch.randperm(len(self._seen)).tolist()])
            for number in torch.randperm(len(batches)).tolist():
                optimizer.zero_grad()
                for group in self._alike(batches[number]):
                    torch.autograd.backward(self._loss(group)[0] / (scale * len(batches[number])))
                optimizer.step()
                schedule.step()
                self._part.keep_zeros()

    def _batches(self, order: Sequence[int]) -> list[list[int]]:
        """All of ``order``, so that most batches hold few forms."""
        near = sorted(order, key=lambda index: self._forms[index])
        return [near[start : start + _BATCH] for start in range(0, len(near), _BATCH)]

    def _alike(self, batch: Sequence[int]) -> list[list[int]]:
        forms: dict[_Forms, list[int]] = {}
        for index in batch:
            forms.setdefault(self._forms[index], []).append(index)
        return list(forms.values())

    def _loss(self, group: Sequence[int]) -> tuple[torch.Tensor, float]:
        import torch

        inputs, axes = {}, {}
        for name, arrays in self._given.items():
            sizes = _is_size(arrays[group[0]])
            chosen = arrays[group[0]] if sizes else np.stack([arrays[index] for index in group])
            inputs[name], axes[name] = torch.from_numpy(chosen.copy()), None if sizes else 0
        wanted = torch.from_numpy(np.stack([self._wanted[index] for index in group]))
        # The graph may hold a batch of one fast: each sample is computed as if it were alone.
        made: torch.Tensor = torch.vmap(self._part, in_dims=(axes,))(inputs)
        return (made - wanted).square().sum(), float(wanted.square().sum())


def _is_size(array: np.ndarray) -> bool:
    """Whether it may say how large other tensors are; then a sample's own is what PyTorch must be told."""
    return array.dtype.kind in "iu" and array.ndim < 2


def _form(array: np.ndarray) -> tuple[tuple[int, ...], bytes]:
    return array.shape, array.tobytes() if _is_size(array) else b""
