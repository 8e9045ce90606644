"""Weights scaled by what they meet, so that rounding spares those that large inputs meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.layers import Layer, constant_of
from edgewise.quantize.passes.select_layers import SelectLayers
from edgewise.quantize.passes.sites import Site, scale, sites_of
from edgewise.quantize.passes.writing import Writer
from edgewise.quantize.plan import Plan
from edgewise.quantize.pruning.columns import columns, columns_refusal
from edgewise.quantize.pruning.matrices import as_matrices, from_matrices
from edgewise.quantize.stored import coding_for
from edgewise.quantize.streaming import watch
from edgewise.runtime.progress import Progress, silent

if TYPE_CHECKING:
    from edgewise.quantize.spec import QuantSpec
    from edgewise.runtime.data import Dataset

_POWERS = np.linspace(0.0, 1.0, 11)
_ROWS = 512  # of what a layer reads, over all samples
_LEAST = 1e-8  # of the mean input of a channel

Matrix = NDArray[np.float32]


class SearchScales(ir.passes.InPlacePass):
    """Multiply weights that meet large inputs by a power of the inputs' mean size, and divide the inputs: the same function.

    Before::

        LayerNormalization ──► x ──► MatMul(v)                    round(v)·x far from v·x where x is large

    After::

        LayerNormalization(scale/f) ──► x/f ──► MatMul(v·f)       round(v·f)·x/f nearer: f = (mean |x|)^a, relative

    The power a is that of eleven whose rounded weights lose least on rows of calibration data. The factors go where
    ``BalanceChannels`` puts them: into what makes the tensor, or a Mul where the gain is 2 dB and more. For weights alone: with
    integer activations balancing decides. J. Lin et al., "AWQ" (MLSys 2024). A site that does not gain stays as it is.

    Args:
        spec: the scheme; weights alone, of fewer than 7 bits.
        data: calibration samples.
        keep_float: names of layers to leave in float.
    """

    def __init__(
        self, spec: QuantSpec, data: Dataset, *, keep_float: Sequence[str] = (), progress: Progress = silent
    ) -> None:
        self._spec, self._data, self._keep_float, self._progress = spec, data, keep_float, progress
        self.scaled: list[dict[str, Any]] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Scale what gains; ``scaled`` tells which tensors, by which power and how much."""
        plan = Plan(self._spec)
        SelectLayers(plan, self._keep_float)(model)
        sites = [site for site in sites_of(plan) if all(_reads_all(layer, site.channels) for layer in site.layers)]
        seen = {site.value: _Seen(site, max(1, _ROWS // max(1, len(self._data)))) for site in sites}
        watchers = {value: each.update for value, each in seen.items()}
        watch(model, watchers, self._data, task="search scales", progress=self._progress)
        writer = Writer(model.graph)
        for site in sites:
            power, factors, gain = self._best(site, seen[site.value])
            if how := scale(writer, site, factors, gain):
                tensor = str(site.value.name)
                self.scaled.append({"tensor": tensor, "power": power, "how": how, "gain_db": round(gain, 2)})
        return ir.passes.PassResult(model, modified=bool(self.scaled))

    def _best(self, site: Site, seen: _Seen) -> tuple[float, NDArray[np.float64], float]:
        mean = np.maximum(seen.mean, _LEAST)
        relative = mean / np.sqrt(mean.max() * mean.min())
        candidates = [relative**power for power in _POWERS]
        errors = [sum(self._error(layer, rows, each) for layer, rows in seen.read()) for each in candidates]
        best = int(np.argmin(errors))
        gain = 10 * np.log10(errors[0] / errors[best]) if errors[best] > 0 else 0.0
        return round(float(_POWERS[best]), 1), candidates[best], float(gain)

    def _error(self, layer: Layer, rows: Matrix, factors: NDArray[np.float64]) -> float:
        """The squared error of a layer's outputs with weights scaled by ``factors`` and rounded as they will be."""
        weights = np.asarray(constant_of(layer.node.inputs[layer.weight or 0]), dtype=np.float32)
        matrices = as_matrices(layer, weights)
        coding = coding_for(self._spec, layer, weights.shape, wide=False)
        scaled = np.asarray(
            from_matrices(layer, (matrices * factors).astype(np.float32), weights.shape), dtype=np.float32
        )
        scales = coding.scales(scaled)
        rounded = coding.round(scaled, scales) * coding.steps(scales, weights.shape)
        difference = (as_matrices(layer, rounded) / factors - matrices).reshape(len(matrices), -1)
        groups = len(rows)
        parts = difference.reshape(groups, len(difference) // groups, -1)
        return float(np.sum(np.square(rows @ parts.transpose(0, 2, 1), dtype=np.float64)))


def _reads_all(layer: Layer, channels: int) -> bool:
    """Whether each output reads every channel; a depthwise layer's scale takes any factor."""
    weights = np.asarray(constant_of(layer.node.inputs[layer.weight or 0]))
    return not columns_refusal(layer) and as_matrices(layer, weights).shape[-1] == channels


class _Seen:
    """Of a site: the mean size of each channel, and some rows of what its layers read."""

    def __init__(self, site: Site, rows: int) -> None:
        self._site, self._rows = site, rows
        self._sum: NDArray[np.float64] = np.zeros(site.channels)
        self._count = 0
        self._kept: list[list[Matrix]] = [[] for _ in site.layers]

    def update(self, values: Matrix) -> None:
        """See one more sample."""
        flat = np.moveaxis(values, -1 if self._site.last else 1, 0).reshape(self._site.channels, -1)
        self._sum += np.abs(flat).sum(axis=1, dtype=np.float64)
        self._count += flat.shape[1]
        for layer, kept in zip(self._site.layers, self._kept, strict=True):
            kept.append(columns(layer, values, self._rows))

    @property
    def mean(self) -> NDArray[np.float64]:
        """Of the magnitude, per channel."""
        return self._sum / max(self._count, 1)

    def read(self) -> list[tuple[Layer, Matrix]]:
        """Each layer with its rows, float32 [groups, rows, columns]."""
        return [
            (layer, np.concatenate(kept, axis=1)) for layer, kept in zip(self._site.layers, self._kept, strict=True)
        ]
