"""Channels of like range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.balance import ChannelStatistics, Reader, best_factors
from edgewise.quantize.grid import Grid
from edgewise.quantize.layers import Layer, attribute, constant_of
from edgewise.quantize.observations import Observations
from edgewise.quantize.passes.select_layers import SelectLayers
from edgewise.quantize.passes.sites import Site, scale, sites_of
from edgewise.quantize.passes.writing import Writer
from edgewise.quantize.plan import Plan
from edgewise.quantize.pruning.matrices import as_matrices
from edgewise.runtime.progress import Progress, silent

if TYPE_CHECKING:
    from edgewise.quantize.spec import QuantSpec
    from edgewise.runtime.data import Dataset


class BalanceChannels(ir.passes.InPlacePass):
    """Divide wide channels of a tensor by factors, and multiply the weights that read them: the same function.

    Before::

        Conv(w, b) ──► Relu ──► x ──► Conv(v)            LayerNormalization ──► x ──┬──► MatMul(v)
                                                                                    └──► Add

    After::

        Conv(w/f, b/f) ──► Relu ──► x/f ──► Conv(v·f)    LayerNormalization ──► x ──┬──► Mul(1/f) ──► MatMul(v·f)
                                                                                    └──► Add

    One scale for the whole tensor then suits all of its channels. The factors go into what makes the tensor (weights and
    biases, a normalization's scale, a constant that it is multiplied by), through operators that keep channels apart and
    through Concat. Where others read the tensor too, linear layers get a Mul, if that gains enough. The gain is estimated
    from calibration data; without one, nothing changes.
    """

    def __init__(
        self,
        spec: QuantSpec,
        data: Dataset,
        *,
        keep_float: Sequence[str] = (),
        progress: Progress = silent,
        observations: Observations | None = None,
    ) -> None:
        self._spec, self._data, self._keep_float, self._progress = spec, data, keep_float, progress
        self._observations = observations or Observations(remember=False)
        self.balanced: list[dict[str, str | float]] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Balance every tensor that gains by it; ``balanced`` tells which."""
        plan = Plan(self._spec)
        SelectLayers(plan, self._keep_float)(model)
        balances = self._spec.balance and self._spec.per_channel and not self._spec.weights_only
        sites = sites_of(plan) if balances else []
        watched = {site.value: ChannelStatistics(-1 if site.last else 1) for site in sites}
        found = self._observations.watch(model, watched, self._data, task="balance", progress=self._progress)
        writer = Writer(model.graph)
        for site, seen in zip(sites, found.seen, strict=True):
            self._balance(writer, site, seen)
        return ir.passes.PassResult(model, modified=bool(self.balanced))

    def _balance(self, writer: Writer, site: Site, seen: ChannelStatistics) -> None:
        grid = Grid(self._spec.activation_dtype, self._spec.activation_symmetric, one_sided=self._spec.one_sided)
        readers = [reader_of(layer) for layer in site.layers]
        # Single channels of enormous range are a transformer's; a CNN's classes drift further from the float network's by it.
        factors, gain = best_factors(seen, readers, grid, self._spec.bits, few=site.last)
        if how := scale(writer, site, factors, gain):
            self.balanced.append({"tensor": str(site.value.name), "how": how, "gain_db": round(gain, 2)})


def reader_of(layer: Layer) -> Reader:
    """What a layer's weights let through of each channel's noise."""
    array: NDArray[np.float32] = np.asarray(constant_of(layer.node.inputs[layer.weight or 0]), dtype=np.float32)
    return Reader(
        as_matrices(layer, array), depthwise=layer.node.op_type == "Conv" and attribute(layer.node, "group", 1) > 1
    )
