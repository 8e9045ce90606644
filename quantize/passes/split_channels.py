"""Channels of enormous range taken apart into copies."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgewise.quantize.balance import ChannelStatistics, Reader, best_factors, noise_of
from edgewise.quantize.grid import Grid
from edgewise.quantize.layers import constant_of
from edgewise.quantize.passes.balance_channels import reader_of
from edgewise.quantize.passes.select_layers import SelectLayers
from edgewise.quantize.passes.sites import LEAST_GAIN_OF_MUL_DB, Site, sites_of
from edgewise.quantize.passes.writing import Writer, before_readers
from edgewise.quantize.plan import Plan
from edgewise.quantize.streaming import watch
from edgewise.runtime.progress import Progress, silent

if TYPE_CHECKING:
    from edgewise.quantize.spec import QuantSpec
    from edgewise.runtime.data import Dataset

_SHARE = 24  # at most one copy for so many channels: 4 % more work
_LANES = 16  # kernels compute so many channels at once; wide tensors stay a multiple of it
_WIDE = 16 * _LANES

Counts = NDArray[np.int64]


class SplitChannels(ir.passes.InPlacePass):
    """Let linear layers read the widest channels as several smaller copies: the same function, finer steps for all.

    Before, channel 1 reaching 24 and the others 6::

        Gelu ──► x [0 1 2 …] ──► MatMul(v)                    one scale for −24 … 24

    After::

        Gelu ──► x ─┬─────────────────► Concat ──► Mul(1 ¼ 1 … ¼ ¼ ¼) ──► MatMul(v, rows 1 1 1 again)      one scale for −6 … 6
                    └─► Gather(1 1 1) ──►┘

    Balancing narrows a channel at the cost of the weights that read it, which grow and get coarser steps; copies cost work in
    their place, one part in 24 at most. R. Zhao et al., "Improving Neural Network Quantization without Retraining using Outlier
    Channel Splitting" (ICML 2019), by activations. A tensor is left alone unless the noise behind it is estimated to fall by 2 dB beyond
    what balancing gains. Convolutions are left to balancing: a copy of an image costs more than it brings.
    """

    def __init__(
        self, spec: QuantSpec, data: Dataset, *, keep_float: Sequence[str] = (), progress: Progress = silent
    ) -> None:
        self._spec, self._data, self._keep_float, self._progress = spec, data, keep_float, progress
        self.split: list[dict[str, str | int | float]] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Split what gains; ``split`` tells which tensors, into how many copies more, and the gain."""
        plan = Plan(self._spec)
        SelectLayers(plan, self._keep_float)(model)
        splits = self._spec.per_channel and not self._spec.weights_only
        sites = [site for site in sites_of(plan) if site.last] if splits else []
        seen = {site.value: ChannelStatistics(-1) for site in sites}
        watchers = {value: statistics.update for value, statistics in seen.items()}
        watch(model, watchers, self._data, task="split", progress=self._progress)
        writer = Writer(model.graph)
        for site in sites:
            self._split(writer, site, seen[site.value])
        return ir.passes.PassResult(model, modified=bool(self.split))

    def _split(self, writer: Writer, site: Site, seen: ChannelStatistics) -> None:
        parts = parts_of(np.maximum(-seen.lowest, seen.highest), _copies(site.channels))
        places = np.concatenate([np.arange(site.channels), np.repeat(np.arange(site.channels), parts - 1)])
        readers = [reader_of(layer) for layer in site.layers]
        wider = [replace(each, weights=each.weights[..., places]) for each in readers]
        before, after = self._noise(seen, readers), self._noise(seen.split(places, parts), wider)
        gain = 10 * np.log10(before / after) if after > 0 else 0.0
        if gain >= LEAST_GAIN_OF_MUL_DB:
            _write(writer, site, parts, places)
            added = len(places) - site.channels
            self.split.append({"tensor": str(site.value.name), "copies": added, "gain_db": round(float(gain), 2)})

    def _noise(self, seen: ChannelStatistics, readers: list[Reader]) -> float:
        """Behind the readers, once balanced."""
        grid = Grid(self._spec.activation_dtype, self._spec.activation_symmetric, one_sided=self._spec.one_sided)
        factors, _ = best_factors(seen, readers, grid, self._spec.bits, few=True)
        return noise_of(factors, seen, readers, grid, self._spec.bits)


def parts_of(ranges: NDArray[np.float64], copies: int) -> Counts:
    """Into how many parts each channel goes so that the widest part is as narrow as that many copies allow.

    Args:
        ranges: the largest magnitude of each channel, float64 [channels].
        copies: how many there are to give away.

    Returns:
        int64 [channels], 1 where a channel stays whole; their sum is that of channels and copies.
    """
    parts = np.ones(len(ranges), dtype=np.int64)
    widest = [(-float(reach), channel) for channel, reach in enumerate(ranges)]
    heapq.heapify(widest)
    for _ in range(copies):
        channel = widest[0][1]
        parts[channel] += 1
        heapq.heapreplace(widest, (-float(ranges[channel]) / int(parts[channel]), channel))
    return parts


def _copies(channels: int) -> int:
    most = channels // _SHARE
    return most if channels < _WIDE else max(_LANES, most // _LANES * _LANES)


def _write(writer: Writer, site: Site, parts: Counts, places: Counts) -> None:
    value = site.value
    copies, wider, smaller = (
        ir.Value(name=writer.free_name(f"{value.name}_{what}"), type=value.type)
        for what in ("copies", "wider", "parts")
    )
    if value.shape is not None:
        copies.shape = ir.Shape([*value.shape[:-1], len(places) - site.channels])
        wider.shape = smaller.shape = ir.Shape([*value.shape[:-1], len(places)])
    chosen = writer.constant(f"{value.name}_places", places[site.channels :].astype(np.int64))
    shares = writer.constant(f"{value.name}_shares", (1 / parts[places]).astype(np.float32))
    # Not one Gather of all channels: whole rows are copied at once, single channels are not.
    nodes = [
        ir.node("Gather", [value, chosen], {"axis": -1}, outputs=[copies], name=writer.free_name(f"{value.name}_Gather")),
        ir.node("Concat", [value, copies], {"axis": -1}, outputs=[wider], name=writer.free_name(f"{value.name}_Concat")),
        ir.node("Mul", [wider, shares], outputs=[smaller], name=writer.free_name(f"{value.name}_Mul")),
    ]  # fmt: skip
    before_readers(writer.graph, value, nodes)
    for layer in site.layers:
        index = layer.weight or 0
        weights = layer.node.inputs[index]
        array = np.asarray(constant_of(weights), dtype=np.float32)
        rows = np.ascontiguousarray(np.take(array, places, axis=1 - (layer.channel_axis or 0)))
        name = f"{weights.name}_copies" if weights is not None else "copies"
        layer.node.replace_input_with(index, writer.constant(name, rows))
        layer.node.replace_input_with(layer.activations[0], smaller)
